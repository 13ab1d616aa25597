//! Mounts of volumes (docs/modal-protocol.md, section 4).

use crate::service::Service;
use modal_proto::client::VolumeMount;
use sandbox_provider_kit::{
    Error, Result,
    api::{error::shown, wit::VolumeMount as WantedVolume},
};

/// The paths at which no volume can be mounted (docs/modal-protocol.md, section 4).
const NO_VOLUMES: [&str; 3] = ["/", "/root", "/tmp"];

/// Looks up the volumes, creates those with `create`, and returns their mounts.
pub(crate) async fn mounts(service: &Service, wanted: &[WantedVolume]) -> Result<Vec<VolumeMount>> {
    let mut mounts = Vec::with_capacity(wanted.len());
    for volume in wanted {
        mounts.push(VolumeMount {
            volume_id: service.names.volume_id(&volume.volume, volume.create).await?,
            mount_path: volume.path.clone(),
            allow_background_commits: true,
            read_only: volume.read_only,
            sub_path: volume.sub_path.clone(),
        });
    }
    Ok(mounts)
}

/// Checks that the volumes can be mounted.
pub(crate) fn check(volumes: &[WantedVolume]) -> Result<()> {
    for (index, volume) in volumes.iter().enumerate() {
        if !is_canonical(&volume.path) || NO_VOLUMES.contains(&volume.path.as_str()) {
            return Err(Error::invalid(format!(
                "A volume cannot be mounted at `{}`: give an absolute path without `.`, `..` and `//`, other than {}.",
                shown(&volume.path),
                NO_VOLUMES.join(", ")
            ))
            .about(&volume.path));
        }
        if volumes[..index].iter().any(|earlier| earlier.volume == volume.volume) {
            return Err(Error::invalid(format!("The volume `{}` is mounted twice.", shown(&volume.volume)))
                .about(&volume.volume));
        }
        if volume.sub_path.as_deref().is_some_and(|path| path.split('/').any(|part| part == "..")) {
            return Err(
                Error::invalid("The path of a part of a volume must lie within the volume.").about(&volume.volume)
            );
        }
    }
    Ok(())
}

/// Returns whether a path is absolute and has no empty parts, `.` or `..`.
pub(crate) fn is_canonical(path: &str) -> bool {
    let mut parts = path.split('/');
    let absolute = parts.next() == Some("");
    absolute && path.len() > 1 && parts.all(|part| !matches!(part, "" | "." | "..")) && !path.contains('\0')
}
