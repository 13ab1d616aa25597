//! The control plane, `modal.client.ModalClient`: a table of its methods. A function of a sibling module handles each method.
//!
//! [`crate::http::auth`] checks credentials before a call gets here, and passes the client's properties on as a [`Caller`].

use std::future::Future;
use std::sync::Arc;

use modal_proto::client::modal_client_server::ModalClient;
use modal_proto::client::*;
use modal_proto::prost::Message;
use tonic::{Request, Response, Status};

use crate::model::state::State;
use crate::service::caller::Caller;
use crate::service::replies::Replies;
use crate::service::{
    app_logs, apps, auth, connect_tokens, images, logs, outbound, persistent, sandbox_create, sandbox_manage, secrets,
    sidecar_create, snapshots, stats, tasks, tunnels, uploads, volume_files, volumes,
};

/// The service of the control plane.
#[derive(Debug, Clone)]
pub struct Control {
    state: Arc<State>,
    /// Responses to calls that clients may repeat.
    replies: Arc<Replies>,
}

fn caller<T>(request: &Request<T>) -> Caller {
    request.extensions().get::<Caller>().cloned().unwrap_or_default()
}

impl Control {
    /// Creates the service for the state of an emulator.
    pub fn new(state: Arc<State>) -> Control {
        Control { state, replies: Arc::default() }
    }

    /// Carries out a call, or returns the response of an earlier attempt of the same call.
    async fn once<T, F>(&self, method: &str, caller: &Caller, call: F) -> Result<Response<T>, Status>
    where
        T: Message + Default,
        F: Future<Output = Result<T, Status>>,
    {
        self.replies.once(method, caller.key.as_deref(), call).await.map(Response::new)
    }
}

/// Generates the trait's implementation from the table below. `once`: a repeated attempt gets the response of the first one.
/// `each`: every attempt is carried out.
macro_rules! methods {
    (@call once, $control:ident, $name:ident, $caller:ident, $call:expr) => {
        $control.once(stringify!($name), &$caller, $call).await
    };
    (@call each, $control:ident, $name:ident, $caller:ident, $call:expr) => {
        $call.await.map(Response::new)
    };
    ($($kind:ident $name:ident($request:ty) -> $response:ty = $function:path;)*) => {
        #[tonic::async_trait]
        impl ModalClient for Control {
            type AppGetLogsStream = logs::Batches;
            type ImageJoinStreamingStream = images::Joined;
            type SandboxGetLogsStream = logs::Batches;
            type VolumeListFilesStream = volume_files::Listed<VolumeListFilesResponse>;
            type VolumeListFiles2Stream = volume_files::Listed<VolumeListFiles2Response>;
            $(
                async fn $name(&self, request: Request<$request>) -> Result<Response<$response>, Status> {
                    let caller = caller(&request);
                    methods!(@call $kind, self, $name, caller, $function(&self.state, &caller, request.into_inner()))
                }
            )*
        }

        /// The names of all methods of the service, as in the generated trait.
        pub const METHODS: &[&str] = &[$(stringify!($name)),*];
    };
}

methods! {
    each app_client_disconnect(AppClientDisconnectRequest) -> () = apps::disconnect;
    each app_count_logs(AppCountLogsRequest) -> AppCountLogsResponse = logs::count;
    once app_create(AppCreateRequest) -> AppCreateResponse = apps::create;
    each app_fetch_logs(AppFetchLogsRequest) -> AppFetchLogsResponse = logs::fetch;
    each app_get_by_deployment_name(AppGetByDeploymentNameRequest) -> AppGetByDeploymentNameResponse = apps::by_name;
    each app_get_info(AppGetInfoRequest) -> AppGetInfoResponse = apps::info;
    each app_get_layout(AppGetLayoutRequest) -> AppGetLayoutResponse = apps::layout;
    each app_get_lifecycle(AppGetLifecycleRequest) -> AppGetLifecycleResponse = apps::lifecycle;
    each app_get_logs(AppGetLogsRequest) -> logs::Batches = app_logs::stream;
    each app_get_or_create(AppGetOrCreateRequest) -> AppGetOrCreateResponse = apps::get_or_create;
    each app_get_tags(AppGetTagsRequest) -> AppGetTagsResponse = apps::tags;
    each app_heartbeat(AppHeartbeatRequest) -> () = apps::heartbeat;
    each app_list(AppListRequest) -> AppListResponse = apps::list;
    each app_publish(AppPublishRequest) -> AppPublishResponse = apps::publish;
    each app_set_tags(AppSetTagsRequest) -> () = apps::set_tags;
    each app_stop(AppStopRequest) -> () = apps::stop;
    each auth_token_get(AuthTokenGetRequest) -> AuthTokenGetResponse = auth::token;
    once blob_create(BlobCreateRequest) -> BlobCreateResponse = uploads::blob_create;
    each blob_get(BlobGetRequest) -> BlobGetResponse = uploads::blob_get;
    each client_hello(()) -> ClientHelloResponse = auth::hello;
    each container_stop(ContainerStopRequest) -> ContainerStopResponse = tasks::stop;
    once environment_create(EnvironmentCreateRequest) -> () = apps::environment_create;
    each environment_delete(EnvironmentDeleteRequest) -> () = apps::environment_delete;
    each environment_get_or_create(EnvironmentGetOrCreateRequest) -> EnvironmentGetOrCreateResponse = apps::environment_get_or_create;
    each environment_list(()) -> EnvironmentListResponse = apps::environment_list;
    each image_build_chain_get(ImageBuildChainGetRequest) -> ImageBuildChainGetResponse = images::build_chain;
    each image_delete(ImageDeleteRequest) -> () = images::delete;
    each image_from_id(ImageFromIdRequest) -> ImageFromIdResponse = images::from_id;
    each image_get_by_tag(ImageGetByTagRequest) -> ImageGetByTagResponse = images::by_tag;
    once image_get_or_create(ImageGetOrCreateRequest) -> ImageGetOrCreateResponse = images::get_or_create;
    each image_join_streaming(ImageJoinStreamingRequest) -> images::Joined = images::join;
    each image_list_tags(ImageListTagsRequest) -> ImageListTagsResponse = images::list_tags;
    each image_name_delete(ImageNameDeleteRequest) -> () = images::delete_name;
    each image_publish(ImagePublishRequest) -> ImagePublishResponse = images::publish;
    each image_tag_revisions(ImageTagRevisionsRequest) -> ImageTagRevisionsResponse = images::tag_revisions;
    each mount_batched_check_existence(MountBatchedCheckExistenceRequest) -> MountBatchedCheckExistenceResponse = uploads::check;
    once mount_get_or_create(MountGetOrCreateRequest) -> MountGetOrCreateResponse = uploads::get_or_create;
    each mount_put_file(MountPutFileRequest) -> MountPutFileResponse = uploads::put;
    once persistent_sandbox_create(PersistentSandboxCreateRequest) -> PersistentSandboxCreateResponse = persistent::create;
    each persistent_sandbox_get(PersistentSandboxGetRequest) -> PersistentSandboxGetResponse = persistent::get;
    once persistent_sandbox_resume(PersistentSandboxResumeRequest) -> PersistentSandboxResumeResponse = persistent::resume;
    each persistent_sandbox_terminate(PersistentSandboxTerminateRequest) -> PersistentSandboxTerminateResponse = persistent::terminate;
    each persistent_sandbox_tunnels_list(PersistentSandboxTunnelsListRequest) -> PersistentSandboxTunnelsListResponse = persistent::tunnels;
    each proxy_get(ProxyGetRequest) -> ProxyGetResponse = outbound::proxy;
    once sandbox_container_create_v2(SandboxContainerCreateV2Request) -> SandboxContainerCreateV2Response = sidecar_create::create_v2;
    once sandbox_create(SandboxCreateRequest) -> SandboxCreateResponse = sandbox_create::create;
    each sandbox_create_connect_token(SandboxCreateConnectTokenRequest) -> SandboxCreateConnectTokenResponse = connect_tokens::create;
    each sandbox_create_connect_token_v2(SandboxCreateConnectTokenRequest) -> SandboxCreateConnectTokenResponse = connect_tokens::create;
    once sandbox_create_v2(SandboxCreateV2Request) -> SandboxCreateV2Response = sandbox_create::create_v2;
    each sandbox_get_command_router_access(SandboxGetCommandRouterAccessRequest) -> SandboxGetCommandRouterAccessResponse = sandbox_manage::router_access;
    each sandbox_get_exit_snapshot(SandboxGetExitSnapshotRequest) -> SandboxGetExitSnapshotResponse = snapshots::at_exit;
    each sandbox_get_exit_snapshot_v2(SandboxGetExitSnapshotRequest) -> SandboxGetExitSnapshotResponse = snapshots::at_exit;
    each sandbox_get_from_name(SandboxGetFromNameRequest) -> SandboxGetFromNameResponse = sandbox_manage::from_name;
    each sandbox_get_from_name_v2(SandboxGetFromNameRequest) -> SandboxGetFromNameResponse = sandbox_manage::from_name_v2;
    each sandbox_get_logs(SandboxGetLogsRequest) -> logs::Batches = logs::stream;
    each sandbox_get_resource_usage(SandboxGetResourceUsageRequest) -> SandboxGetResourceUsageResponse = sandbox_manage::resource_usage;
    each sandbox_get_stats(SandboxGetStatsRequest) -> SandboxGetStatsResponse = stats::get;
    each sandbox_get_stats_v2(SandboxGetStatsRequest) -> SandboxGetStatsResponse = stats::get;
    each sandbox_get_task_id(SandboxGetTaskIdRequest) -> SandboxGetTaskIdResponse = sandbox_manage::task_id;
    each sandbox_get_task_id_v2(SandboxGetTaskIdRequest) -> SandboxGetTaskIdResponse = sandbox_manage::task_id;
    each sandbox_get_tunnels(SandboxGetTunnelsRequest) -> SandboxGetTunnelsResponse = tunnels::get;
    each sandbox_get_tunnels_v2(SandboxGetTunnelsRequest) -> SandboxGetTunnelsResponse = tunnels::get;
    each sandbox_list(SandboxListRequest) -> SandboxListResponse = sandbox_manage::list;
    each sandbox_list_v2(SandboxListRequest) -> SandboxListResponse = sandbox_manage::list_v2;
    once sandbox_restore(SandboxRestoreRequest) -> SandboxRestoreResponse = snapshots::restore;
    once sandbox_restore_v2(SandboxRestoreV2Request) -> SandboxRestoreV2Response = snapshots::restore_v2;
    each sandbox_set_name(SandboxSetNameRequest) -> SandboxSetNameResponse = sandbox_manage::set_name;
    each sandbox_set_outbound_policy(SandboxSetOutboundPolicyRequest) -> SandboxSetOutboundPolicyResponse = outbound::set;
    each sandbox_set_outbound_policy_v2(SandboxSetOutboundPolicyRequest) -> SandboxSetOutboundPolicyResponse = outbound::set;
    once sandbox_snapshot(SandboxSnapshotRequest) -> SandboxSnapshotResponse = snapshots::memory;
    once sandbox_snapshot_fs(SandboxSnapshotFsRequest) -> SandboxSnapshotFsResponse = snapshots::fs;
    once sandbox_snapshot_fs_async(SandboxSnapshotFsAsyncRequest) -> SandboxSnapshotFsAsyncResponse = snapshots::fs_async;
    each sandbox_snapshot_fs_async_get(SandboxSnapshotFsAsyncGetRequest) -> SandboxSnapshotFsResponse = snapshots::fs_async_get;
    each sandbox_snapshot_get(SandboxSnapshotGetRequest) -> SandboxSnapshotGetResponse = snapshots::memory_get;
    each sandbox_snapshot_wait(SandboxSnapshotWaitRequest) -> SandboxSnapshotWaitResponse = snapshots::memory_wait;
    once sandbox_stdin_write(SandboxStdinWriteRequest) -> SandboxStdinWriteResponse = logs::stdin;
    each sandbox_tags_get(SandboxTagsGetRequest) -> SandboxTagsGetResponse = sandbox_manage::tags;
    each sandbox_tags_get_v2(SandboxTagsGetRequest) -> SandboxTagsGetResponse = sandbox_manage::tags;
    each sandbox_tags_set(SandboxTagsSetRequest) -> () = sandbox_manage::set_tags;
    each sandbox_tags_set_v2(SandboxTagsSetRequest) -> () = sandbox_manage::set_tags;
    each sandbox_terminate(SandboxTerminateRequest) -> SandboxTerminateResponse = sandbox_manage::terminate;
    each sandbox_terminate_v2(SandboxTerminateRequest) -> SandboxTerminateResponse = sandbox_manage::terminate;
    each sandbox_wait(SandboxWaitRequest) -> SandboxWaitResponse = sandbox_manage::wait_for;
    each sandbox_wait_until_ready(SandboxWaitUntilReadyRequest) -> SandboxWaitUntilReadyResponse = sandbox_manage::wait_until_ready;
    each sandbox_wait_v2(SandboxWaitRequest) -> SandboxWaitResponse = sandbox_manage::wait_for;
    each secret_delete(SecretDeleteRequest) -> () = secrets::delete;
    each secret_get_info(SecretGetInfoRequest) -> SecretGetInfoResponse = secrets::info;
    once secret_get_or_create(SecretGetOrCreateRequest) -> SecretGetOrCreateResponse = secrets::get_or_create;
    each secret_list(SecretListRequest) -> SecretListResponse = secrets::list;
    each task_get_command_router_access(TaskGetCommandRouterAccessRequest) -> TaskGetCommandRouterAccessResponse = sandbox_manage::task_router_access;
    each task_get_info(TaskGetInfoRequest) -> TaskGetInfoResponse = tasks::info;
    each task_list(TaskListRequest) -> TaskListResponse = tasks::list;
    once volume_copy_files(VolumeCopyFilesRequest) -> () = volume_files::copy_v1;
    once volume_copy_files2(VolumeCopyFiles2Request) -> () = volume_files::copy_v2;
    each volume_delete(VolumeDeleteRequest) -> () = volumes::delete;
    each volume_get_by_id(VolumeGetByIdRequest) -> VolumeGetByIdResponse = volumes::by_id;
    each volume_get_file2(VolumeGetFile2Request) -> VolumeGetFile2Response = volume_files::read;
    once volume_get_or_create(VolumeGetOrCreateRequest) -> VolumeGetOrCreateResponse = volumes::get_or_create;
    each volume_heartbeat(VolumeHeartbeatRequest) -> () = volumes::heartbeat;
    each volume_list(VolumeListRequest) -> VolumeListResponse = volumes::list;
    each volume_list_files(VolumeListFilesRequest) -> volume_files::Listed<VolumeListFilesResponse> = volume_files::list_v1;
    each volume_list_files2(VolumeListFiles2Request) -> volume_files::Listed<VolumeListFiles2Response> = volume_files::list_v2;
    once volume_put_files(VolumePutFilesRequest) -> () = volume_files::put_v1;
    once volume_put_files2(VolumePutFiles2Request) -> VolumePutFiles2Response = volume_files::put_v2;
    once volume_remove_file(VolumeRemoveFileRequest) -> () = volume_files::remove_v1;
    once volume_remove_file2(VolumeRemoveFile2Request) -> () = volume_files::remove_v2;
    once volume_rename(VolumeRenameRequest) -> () = volumes::rename;
}
