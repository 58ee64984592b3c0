//! Messages, each written down once: the macros [`tagged`] and [`record`] make of one declaration the
//! type, its encoder and its decoder, so that the three cannot disagree.

use crate::error::DecodeError;
use crate::fields::{Field, Fields};
use crate::frame::Message;

/// An enum of which a byte tells the variant: the messages of a service, whose tag is the kind of
/// their frame, and alternatives inside a message.
pub(crate) trait Tagged<'a>: Sized {
    /// The byte that tells the variant.
    fn tag(&self) -> u8;

    /// Appends the variant's fields.
    fn write_fields(&self, out: &mut Vec<u8>);

    /// The name of the variant with this tag; `None` if no variant has it.
    fn name(tag: u8) -> Option<&'static str>;

    /// Reads the fields of the variant with this tag; `None` if no variant has it.
    fn read_fields(tag: u8, fields: &mut Fields<'a>) -> Result<Option<Self>, DecodeError>;
}

/// Declares an enum, and how it is written: `TAG => Variant { field: Type }`. The fields stand in the
/// payload in the order of the declaration, each as its type's [`Field`] implementation has it.
macro_rules! tagged {
    (
        $(#[$attribute:meta])*
        pub enum $name:ident $(<$life:lifetime>)? {
            $(
                $(#[$variant_attribute:meta])*
                $tag:literal => $variant:ident
                    $(($value:ident: $value_type:ty))?
                    $({ $($(#[$field_attribute:meta])* $field:ident: $field_type:ty,)* })?,
            )*
        }
    ) => {
        $(#[$attribute])*
        pub enum $name $(<$life>)? {
            $(
                $(#[$variant_attribute])*
                $variant $(($value_type))? $({ $($(#[$field_attribute])* $field: $field_type,)* })?,
            )*
        }

        impl<'a> $crate::message::Tagged<'a> for $name $(<$life>)? {
            fn tag(&self) -> u8 {
                match self {
                    $(Self::$variant { .. } => $tag,)*
                }
            }

            #[allow(unused_variables, reason = "an enum may have no fields")]
            fn write_fields(&self, out: &mut Vec<u8>) {
                match self {
                    $(Self::$variant $(($value))? $({ $($field,)* })? => {
                        $($crate::fields::Field::write($value, out);)?
                        $($($crate::fields::Field::write($field, out);)*)?
                    })*
                }
            }

            fn name(tag: u8) -> Option<&'static str> {
                match tag {
                    $($tag => Some(stringify!($variant)),)*
                    _ => None,
                }
            }

            #[allow(unused_variables, reason = "an enum may have no fields")]
            fn read_fields(
                tag: u8,
                fields: &mut $crate::fields::Fields<'a>,
            ) -> Result<Option<Self>, $crate::error::DecodeError> {
                Ok(Some(match tag {
                    $($tag => Self::$variant
                        $(($crate::fields::Field::read(fields, stringify!($value))?))?
                        $({ $($field: $crate::fields::Field::read(fields, stringify!($field))?,)* })?,)*
                    _ => return Ok(None),
                }))
            }
        }
    };
}
pub(crate) use tagged;

/// Declares a struct that is written as its fields, one after the other.
macro_rules! record {
    (
        $(#[$attribute:meta])*
        pub struct $name:ident $(<$life:lifetime>)? {
            $($(#[$field_attribute:meta])* pub $field:ident: $field_type:ty,)*
        }
    ) => {
        $(#[$attribute])*
        pub struct $name $(<$life>)? {
            $($(#[$field_attribute])* pub $field: $field_type,)*
        }

        impl<'a> $crate::fields::Field<'a> for $name $(<$life>)? {
            fn write(&self, out: &mut Vec<u8>) {
                $($crate::fields::Field::write(&self.$field, out);)*
            }

            fn read(
                fields: &mut $crate::fields::Fields<'a>,
                _: &'static str,
            ) -> Result<Self, $crate::error::DecodeError> {
                Ok(Self {
                    $($field: $crate::fields::Field::read(fields, stringify!($field))?,)*
                })
            }
        }
    };
}
pub(crate) use record;

impl<'a, T: Tagged<'a>> Message<'a> for T {
    fn kind(&self) -> u8 {
        self.tag()
    }

    fn encode_payload(&self, out: &mut Vec<u8>) {
        self.write_fields(out);
    }

    fn decode(kind: u8, payload: &'a [u8]) -> Result<Self, DecodeError> {
        let mut fields = Fields::new(payload);
        let message = T::read_fields(kind, &mut fields)?;
        let message = message.ok_or(DecodeError::UnknownKind(kind))?;
        fields.end()?;
        Ok(message)
    }
}

/// Inside a message the tag stands in front of the fields.
impl<'a, T: Tagged<'a>> Field<'a> for T {
    fn write(&self, out: &mut Vec<u8>) {
        out.push(self.tag());
        self.write_fields(out);
    }

    fn read(fields: &mut Fields<'a>, name: &'static str) -> Result<Self, DecodeError> {
        let tag = Field::read(fields, name)?;
        T::read_fields(tag, fields)?.ok_or(DecodeError::Invalid(name))
    }
}
