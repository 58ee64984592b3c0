//! The status codes that the services use, with their reason phrases (RFC 9110 section 15).

use std::fmt;

macro_rules! statuses {
    ($($name:ident = $code:literal $phrase:literal;)*) => {
        /// A status code this project sends.
        #[derive(Debug, Clone, Copy, PartialEq, Eq)]
        #[repr(u16)]
        pub enum Status {
            $(#[doc = concat!(stringify!($code), " ", $phrase)] $name = $code,)*
        }

        impl Status {
            /// The start of a response with this status: its first line, with its end.
            pub(crate) fn line(self) -> &'static str {
                match self {
                    $(Self::$name => concat!("HTTP/1.1 ", $code, " ", $phrase, "\r\n"),)*
                }
            }

            /// The reason phrase.
            pub fn phrase(self) -> &'static str {
                match self {
                    $(Self::$name => $phrase,)*
                }
            }
        }
    };
}

statuses! {
    Continue = 100 "Continue";
    UploadResumptionSupported = 104 "Upload Resumption Supported";
    Ok = 200 "OK";
    Created = 201 "Created";
    NoContent = 204 "No Content";
    PartialContent = 206 "Partial Content";
    MovedPermanently = 301 "Moved Permanently";
    SeeOther = 303 "See Other";
    NotModified = 304 "Not Modified";
    BadRequest = 400 "Bad Request";
    Unauthorized = 401 "Unauthorized";
    Forbidden = 403 "Forbidden";
    NotFound = 404 "Not Found";
    MethodNotAllowed = 405 "Method Not Allowed";
    RequestTimeout = 408 "Request Timeout";
    Conflict = 409 "Conflict";
    LengthRequired = 411 "Length Required";
    PreconditionFailed = 412 "Precondition Failed";
    ContentTooLarge = 413 "Content Too Large";
    UriTooLong = 414 "URI Too Long";
    UnsupportedMediaType = 415 "Unsupported Media Type";
    RangeNotSatisfiable = 416 "Range Not Satisfiable";
    ExpectationFailed = 417 "Expectation Failed";
    MisdirectedRequest = 421 "Misdirected Request";
    Locked = 423 "Locked";
    TooManyRequests = 429 "Too Many Requests";
    HeaderFieldsTooLarge = 431 "Request Header Fields Too Large";
    InternalServerError = 500 "Internal Server Error";
    NotImplemented = 501 "Not Implemented";
    BadGateway = 502 "Bad Gateway";
    ServiceUnavailable = 503 "Service Unavailable";
    HttpVersionNotSupported = 505 "HTTP Version Not Supported";
    InsufficientStorage = 507 "Insufficient Storage";
}

impl Status {
    /// The number.
    pub fn code(self) -> u16 {
        self as u16
    }
}

impl fmt::Display for Status {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {}", self.code(), self.phrase())
    }
}
