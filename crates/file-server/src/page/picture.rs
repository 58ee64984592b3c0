//! The picture beside a name: a symbol of `templates/pictures.svg`.

use std::path::Path;

/// The extensions whose registered types do not say what people take them for. The first match counts.
const EXTENSIONS: [(&str, &str); 5] = [
    (
        "archive",
        "7z apk bz2 cab deb dmg gz img iso jar rar rpm tar tbz tgz txz war xz zip zst",
    ),
    (
        "code",
        "bash bat c cc cfg conf cpp cs css go h hpp htm html ini java js json json5 jsx kt lua \
         mjs php pl ps1 py rb rs scss sh sql svelte swift toml ts tsx vue xml yaml yml zsh",
    ),
    ("image", "ai cr2 dng eps nef psd raw xcf"),
    ("table", "csv numbers ods tsv xls xlsm xlsx"),
    (
        "text",
        "azw3 doc docx epub key log md mobi odp odt org pages pdf ppt pptx ps rtf tex",
    ),
];

/// The id of the picture of a file or a folder of this name.
pub(crate) fn picture(name: &Path, is_folder: bool) -> &'static str {
    if is_folder {
        return "folder";
    }
    let extension = name.extension().and_then(|extension| extension.to_str());
    let extension = extension.unwrap_or_default().to_ascii_lowercase();
    let has_it = |(_, extensions): &&(_, &str)| extensions.split(' ').any(|one| one == extension);
    if let Some((id, _)) = EXTENSIONS.iter().find(has_it) {
        return id;
    }
    let kind = mime_guess::from_path(name).first_raw().unwrap_or_default();
    let ids = ["image", "video", "audio", "text"];
    let id = ids
        .into_iter()
        .find(|id| kind.starts_with(&format!("{id}/")));
    id.unwrap_or("file")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_kind_has_its_picture() {
        let pictures = include_str!("../../templates/pictures.svg");
        for (name, want) in [
            ("a.JPG", "image"),
            ("a.mp4", "video"),
            ("a.flac", "audio"),
            ("a.txt", "text"),
            ("a.pdf", "text"),
            ("a.tar.gz", "archive"),
            ("a.ts", "code"),
            ("a.xlsx", "table"),
            ("a", "file"),
            (".bashrc", "file"),
            ("a.unknown", "file"),
        ] {
            assert_eq!(picture(Path::new(name), false), want, "{name}");
            assert!(pictures.contains(&format!("id=\"{want}\"")), "{want}");
        }
        assert_eq!(picture(Path::new("a.jpg"), true), "folder");
        assert!(pictures.contains("id=\"folder\""));
    }
}
