//! Names that images are published under.

/// A name of images.
#[derive(Debug, Default)]
pub struct Tag {
    /// What was published under it, newest last; never empty.
    pub revisions: Vec<Revision>,
}

/// A publication.
#[derive(Debug)]
pub struct Revision {
    /// `rv-…`
    pub id: String,
    /// What was published.
    pub image_id: String,
    /// Unix seconds.
    pub created_at: f64,
}

impl Tag {
    /// The image that the name means.
    pub fn image_id(&self) -> &str {
        self.revisions.last().map(|revision| revision.image_id.as_str()).unwrap_or_default()
    }
}
