//! Names under which images are published.

/// A published name with its history.
#[derive(Debug, Default)]
pub struct Tag {
    /// The publications under this name, newest last; never empty.
    pub revisions: Vec<Revision>,
}

/// One publication of an image.
#[derive(Debug)]
pub struct Revision {
    /// `rv-…`
    pub id: String,
    /// Id of the published image.
    pub image_id: String,
    /// Unix seconds.
    pub created_at: f64,
}

impl Tag {
    /// Returns the id of the image that was published last under this name.
    pub fn image_id(&self) -> &str {
        self.revisions.last().map(|revision| revision.image_id.as_str()).unwrap_or_default()
    }
}
