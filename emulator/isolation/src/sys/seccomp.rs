//! Installs seccomp filters.

use std::io;

/// Installs a filter for the calling process and all processes that it starts. Requires `CAP_SYS_ADMIN` in the user
/// namespace.
pub(crate) fn set_filter(steps: &mut [libc::sock_filter]) -> io::Result<()> {
    let len = u16::try_from(steps.len()).map_err(|_| io::Error::from_raw_os_error(libc::EINVAL))?;
    let program = libc::sock_fprog { len, filter: steps.as_mut_ptr() };
    // SAFETY: the kernel copies the program and the number of steps that it states; both outlive the call.
    let set = unsafe {
        libc::syscall(
            libc::SYS_seccomp,
            libc::SECCOMP_SET_MODE_FILTER,
            // Without this flag, older kernels enable a slow mitigation in every process with a filter.
            libc::SECCOMP_FILTER_FLAG_SPEC_ALLOW,
            &raw const program,
        )
    };
    if set < 0 { Err(io::Error::last_os_error()) } else { Ok(()) }
}
