//! Volumes and buckets that are mounted in a container when it starts.
//!
//! A bucket is a directory of the emulator that is named after the bucket and shared by all containers that mount it. No cloud
//! storage is contacted; credentials are only checked for presence.

use std::collections::HashSet;

use container_isolation::Bind;
use modal_proto::client::cloud_bucket_mount::BucketType;
use modal_proto::client::*;

use crate::model::error::Error;
use crate::model::state::State;
use crate::model::volume_views::{Views, Wanted, bind};

/// Top-level directories in which the kernel or the service mounts something.
const KERNELS: [&str; 4] = ["proc", "sys", "dev", "__modal"];

/// Returns all bucket mounts of a definition. Mounts in the older form (`s3_mounts`) are converted to the newer one.
pub fn buckets(definition: &Sandbox) -> Vec<CloudBucketMount> {
    let older = definition.s3_mounts.iter().map(|mount| CloudBucketMount {
        bucket_name: mount.bucket_name.clone(),
        mount_path: mount.mount_path.clone(),
        credentials_secret_id: mount.credentials_secret_id.clone(),
        read_only: mount.read_only,
        bucket_type: BucketType::S3.into(),
        ..Default::default()
    });
    definition.cloud_bucket_mounts.iter().cloned().chain(older).collect()
}

/// Checks the volume and bucket mounts of a container.
///
/// # Errors
///
/// Fails with `Kind::InvalidArgument` if a path, name or option is not valid or used twice, and with `Kind::NotFound` if a
/// volume or secret does not exist.
pub fn check(state: &State, volumes: &[VolumeMount], buckets: &[CloudBucketMount]) -> Result<(), Error> {
    let bad = |text: String| Err(Error::invalid_argument(text));
    let (mut seen, mut places) = (HashSet::new(), HashSet::new());
    let paths = volumes.iter().map(|volume| &volume.mount_path).chain(buckets.iter().map(|bucket| &bucket.mount_path));
    for path in paths {
        check_path(path)?;
        if !places.insert(path.trim_end_matches('/')) {
            return bad(format!("'{path}' is the path of two mounts"));
        }
    }
    for volume in volumes {
        state.volume(&volume.volume_id)?;
        if !seen.insert(&volume.volume_id) {
            return bad(format!("Volume {} is mounted twice", volume.volume_id));
        }
        if volume.sub_path.as_deref().is_some_and(|sub| !stays_inside(sub)) {
            return bad("A volume's sub_path must stay inside it".into());
        }
    }
    for bucket in buckets {
        let name = &bucket.bucket_name;
        let fits = |b: u8| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'_' | b'.');
        if name.is_empty() || name.len() > 222 || !name.bytes().all(fits) || name.starts_with('.') {
            return bad(format!("Invalid bucket name: '{name}'"));
        }
        if !matches!(BucketType::try_from(bucket.bucket_type), Ok(BucketType::S3 | BucketType::R2 | BucketType::Gcp)) {
            return bad(format!("Unknown type of bucket '{name}'"));
        }
        if bucket.key_prefix.as_deref().is_some_and(|prefix| !prefix.ends_with('/') || !stays_inside(prefix)) {
            return bad("key_prefix must end in a '/' and stay inside the bucket".into());
        }
        if !bucket.credentials_secret_id.is_empty() {
            state.secret_values(&bucket.credentials_secret_id)?;
        }
    }
    Ok(())
}

/// Checks the mount paths `inline` for which a request carries credentials.
///
/// # Errors
///
/// Fails with `Kind::InvalidArgument` if no bucket is mounted at one of the paths, or if a requester-pays bucket has no
/// credentials.
pub fn check_credentials<'a>(
    buckets: &[CloudBucketMount],
    inline: impl Iterator<Item = &'a String> + Clone,
) -> Result<(), Error> {
    let mut given = inline.clone();
    if let Some(path) = given.find(|path| !buckets.iter().any(|bucket| bucket.mount_path == **path)) {
        return Err(Error::invalid_argument(format!("There are credentials for '{path}', where no bucket is mounted")));
    }
    let has = |bucket: &CloudBucketMount| {
        !bucket.credentials_secret_id.is_empty() || inline.clone().any(|path| *path == bucket.mount_path)
    };
    match buckets.iter().find(|bucket| bucket.requester_pays && !has(bucket)) {
        Some(bucket) => {
            Err(Error::invalid_argument(format!("Bucket '{}' needs credentials: requester pays", bucket.bucket_name)))
        }
        None => Ok(()),
    }
}

fn check_path(path: &str) -> Result<(), Error> {
    let canonical = path.starts_with('/')
        && path.len() > 1
        && path[1..].trim_end_matches('/').split('/').all(|part| !part.is_empty() && part != "." && part != "..")
        && !path.contains('\0');
    let taken = ["/root", "/tmp"].contains(&path.trim_end_matches('/'))
        || path.split('/').nth(1).is_some_and(|top| KERNELS.contains(&top));
    if canonical && !taken {
        Ok(())
    } else {
        Err(Error::invalid_argument(format!("Nothing can be mounted at '{path}'")))
    }
}

fn stays_inside(part: &str) -> bool {
    !part.contains('\0') && part.split('/').all(|name| name != "..")
}

/// Returns the bind mounts for a build's container, which [`check`] has validated. A build mounts the volumes themselves, not
/// copies of them.
///
/// # Errors
///
/// Fails if the directory of a bucket cannot be created.
pub fn binds(state: &State, volumes: &[VolumeMount], buckets: &[CloudBucketMount]) -> std::io::Result<Vec<Bind>> {
    let volumes = volumes.iter().map(|volume| {
        bind(state.volume_dir(&volume.volume_id), volume.sub_path.as_deref(), &volume.mount_path, volume.read_only)
    });
    let mut binds: Vec<Bind> = volumes.collect();
    binds.extend(bucket_binds(state, buckets)?);
    Ok(binds)
}

/// Returns the bind mounts of buckets, and creates their directories.
///
/// # Errors
///
/// Fails if the directory of a bucket cannot be created.
pub fn bucket_binds(state: &State, buckets: &[CloudBucketMount]) -> std::io::Result<Vec<Bind>> {
    let mut binds = Vec::with_capacity(buckets.len());
    for bucket in buckets {
        let source = state.bucket_dir(&format!("{}-{}", bucket.bucket_type().as_str_name(), bucket.bucket_name));
        std::fs::create_dir_all(&source)?;
        binds.push(bind(source, bucket.key_prefix.as_deref(), &bucket.mount_path, bucket.read_only));
    }
    Ok(binds)
}

/// Makes a container's copies of the volumes that it mounts.
///
/// # Errors
///
/// Fails if a volume does not exist, or if its files cannot be copied.
pub async fn views(state: &State, container_id: &str, mounts: &[VolumeMount]) -> anyhow::Result<Views> {
    let wanted = mounts.iter().map(|mount| {
        let volume = state.volume(&mount.volume_id)?;
        let committed = state.volume_dir(&volume.id);
        Ok(Wanted { id: volume.id, shared: volume.shared, committed, mount: mount.clone() })
    });
    Views::open(state.views().join(container_id), wanted.collect::<Result<_, Error>>()?).await
}
