//! What `/metrics` tells of the files.

use std::fmt;
use std::sync::Arc;

use daemon::{Figures, Page};

use crate::service::FileService;

/// The file service's figures.
pub(crate) struct FileFigures(pub(crate) Arc<FileService>);

impl Figures for FileFigures {
    fn add_to(&self, page: &mut Page) -> fmt::Result {
        let FileService {
            files,
            file_cache,
            archives,
            compressions,
            ..
        } = &*self.0;
        let help = "Uploads that arrive now";
        page.gauge(
            "quartet_file_uploads_open",
            help,
            files.uploads_open() as u64,
        )?;
        let help =
            "Resumable uploads that are remembered: interrupted, or finished a short while ago";
        page.gauge(
            "quartet_file_uploads_kept",
            help,
            files.uploads_kept() as u64,
        )?;
        let help = "Archives of folders that are being made";
        page.gauge("quartet_file_archives_open", help, archives.open() as u64)?;
        let help = "Files that are compressed while they are sent";
        let open = compressions.open() as u64;
        page.gauge("quartet_file_compressions_open", help, open)?;
        let help = "How long one sync of an upload or its folder took";
        page.metric("quartet_file_sync_seconds", help, files.sync_seconds())?;
        let (cached, bytes) = file_cache.size();
        page.gauge(
            "quartet_file_cache_files",
            "Files in the file cache",
            cached,
        )?;
        let help = "Contents of files in the file cache";
        page.gauge("quartet_file_cache_bytes", help, bytes)
    }
}
