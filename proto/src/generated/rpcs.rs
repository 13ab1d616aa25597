/// `AppClientDisconnect` of `ModalClient`.
pub const APP_CLIENT_DISCONNECT: Rpc<crate::client::AppClientDisconnectRequest, ()> = Rpc::new("/modal.client.ModalClient/AppClientDisconnect");
/// `AppCountLogs` of `ModalClient`.
pub const APP_COUNT_LOGS: Rpc<crate::client::AppCountLogsRequest, crate::client::AppCountLogsResponse> = Rpc::new("/modal.client.ModalClient/AppCountLogs");
/// `AppCreate` of `ModalClient`.
pub const APP_CREATE: Rpc<crate::client::AppCreateRequest, crate::client::AppCreateResponse> = Rpc::new("/modal.client.ModalClient/AppCreate");
/// `AppFetchLogs` of `ModalClient`.
pub const APP_FETCH_LOGS: Rpc<crate::client::AppFetchLogsRequest, crate::client::AppFetchLogsResponse> = Rpc::new("/modal.client.ModalClient/AppFetchLogs");
/// `AppGetByDeploymentName` of `ModalClient`.
pub const APP_GET_BY_DEPLOYMENT_NAME: Rpc<crate::client::AppGetByDeploymentNameRequest, crate::client::AppGetByDeploymentNameResponse> = Rpc::new("/modal.client.ModalClient/AppGetByDeploymentName");
/// `AppGetInfo` of `ModalClient`.
pub const APP_GET_INFO: Rpc<crate::client::AppGetInfoRequest, crate::client::AppGetInfoResponse> = Rpc::new("/modal.client.ModalClient/AppGetInfo");
/// `AppGetLayout` of `ModalClient`.
pub const APP_GET_LAYOUT: Rpc<crate::client::AppGetLayoutRequest, crate::client::AppGetLayoutResponse> = Rpc::new("/modal.client.ModalClient/AppGetLayout");
/// `AppGetLifecycle` of `ModalClient`.
pub const APP_GET_LIFECYCLE: Rpc<crate::client::AppGetLifecycleRequest, crate::client::AppGetLifecycleResponse> = Rpc::new("/modal.client.ModalClient/AppGetLifecycle");
/// `AppGetLogs` of `ModalClient`.
pub const APP_GET_LOGS: Rpc<crate::client::AppGetLogsRequest, crate::client::TaskLogsBatch> = Rpc::new("/modal.client.ModalClient/AppGetLogs");
/// `AppGetOrCreate` of `ModalClient`.
pub const APP_GET_OR_CREATE: Rpc<crate::client::AppGetOrCreateRequest, crate::client::AppGetOrCreateResponse> = Rpc::new("/modal.client.ModalClient/AppGetOrCreate");
/// `AppGetTags` of `ModalClient`.
pub const APP_GET_TAGS: Rpc<crate::client::AppGetTagsRequest, crate::client::AppGetTagsResponse> = Rpc::new("/modal.client.ModalClient/AppGetTags");
/// `AppHeartbeat` of `ModalClient`.
pub const APP_HEARTBEAT: Rpc<crate::client::AppHeartbeatRequest, ()> = Rpc::new("/modal.client.ModalClient/AppHeartbeat");
/// `AppList` of `ModalClient`.
pub const APP_LIST: Rpc<crate::client::AppListRequest, crate::client::AppListResponse> = Rpc::new("/modal.client.ModalClient/AppList");
/// `AppPublish` of `ModalClient`.
pub const APP_PUBLISH: Rpc<crate::client::AppPublishRequest, crate::client::AppPublishResponse> = Rpc::new("/modal.client.ModalClient/AppPublish");
/// `AppSetTags` of `ModalClient`.
pub const APP_SET_TAGS: Rpc<crate::client::AppSetTagsRequest, ()> = Rpc::new("/modal.client.ModalClient/AppSetTags");
/// `AppStop` of `ModalClient`.
pub const APP_STOP: Rpc<crate::client::AppStopRequest, ()> = Rpc::new("/modal.client.ModalClient/AppStop");
/// `AuthTokenGet` of `ModalClient`.
pub const AUTH_TOKEN_GET: Rpc<crate::client::AuthTokenGetRequest, crate::client::AuthTokenGetResponse> = Rpc::new("/modal.client.ModalClient/AuthTokenGet");
/// `BlobCreate` of `ModalClient`.
pub const BLOB_CREATE: Rpc<crate::client::BlobCreateRequest, crate::client::BlobCreateResponse> = Rpc::new("/modal.client.ModalClient/BlobCreate");
/// `BlobGet` of `ModalClient`.
pub const BLOB_GET: Rpc<crate::client::BlobGetRequest, crate::client::BlobGetResponse> = Rpc::new("/modal.client.ModalClient/BlobGet");
/// `ClientHello` of `ModalClient`.
pub const CLIENT_HELLO: Rpc<(), crate::client::ClientHelloResponse> = Rpc::new("/modal.client.ModalClient/ClientHello");
/// `ContainerStop` of `ModalClient`.
pub const CONTAINER_STOP: Rpc<crate::client::ContainerStopRequest, crate::client::ContainerStopResponse> = Rpc::new("/modal.client.ModalClient/ContainerStop");
/// `EnvironmentCreate` of `ModalClient`.
pub const ENVIRONMENT_CREATE: Rpc<crate::client::EnvironmentCreateRequest, ()> = Rpc::new("/modal.client.ModalClient/EnvironmentCreate");
/// `EnvironmentDelete` of `ModalClient`.
pub const ENVIRONMENT_DELETE: Rpc<crate::client::EnvironmentDeleteRequest, ()> = Rpc::new("/modal.client.ModalClient/EnvironmentDelete");
/// `EnvironmentGetOrCreate` of `ModalClient`.
pub const ENVIRONMENT_GET_OR_CREATE: Rpc<crate::client::EnvironmentGetOrCreateRequest, crate::client::EnvironmentGetOrCreateResponse> = Rpc::new("/modal.client.ModalClient/EnvironmentGetOrCreate");
/// `EnvironmentList` of `ModalClient`.
pub const ENVIRONMENT_LIST: Rpc<(), crate::client::EnvironmentListResponse> = Rpc::new("/modal.client.ModalClient/EnvironmentList");
/// `ImageBuildChainGet` of `ModalClient`.
pub const IMAGE_BUILD_CHAIN_GET: Rpc<crate::client::ImageBuildChainGetRequest, crate::client::ImageBuildChainGetResponse> = Rpc::new("/modal.client.ModalClient/ImageBuildChainGet");
/// `ImageDelete` of `ModalClient`.
pub const IMAGE_DELETE: Rpc<crate::client::ImageDeleteRequest, ()> = Rpc::new("/modal.client.ModalClient/ImageDelete");
/// `ImageFromId` of `ModalClient`.
pub const IMAGE_FROM_ID: Rpc<crate::client::ImageFromIdRequest, crate::client::ImageFromIdResponse> = Rpc::new("/modal.client.ModalClient/ImageFromId");
/// `ImageGetByTag` of `ModalClient`.
pub const IMAGE_GET_BY_TAG: Rpc<crate::client::ImageGetByTagRequest, crate::client::ImageGetByTagResponse> = Rpc::new("/modal.client.ModalClient/ImageGetByTag");
/// `ImageGetOrCreate` of `ModalClient`.
pub const IMAGE_GET_OR_CREATE: Rpc<crate::client::ImageGetOrCreateRequest, crate::client::ImageGetOrCreateResponse> = Rpc::new("/modal.client.ModalClient/ImageGetOrCreate");
/// `ImageJoinStreaming` of `ModalClient`.
pub const IMAGE_JOIN_STREAMING: Rpc<crate::client::ImageJoinStreamingRequest, crate::client::ImageJoinStreamingResponse> = Rpc::new("/modal.client.ModalClient/ImageJoinStreaming");
/// `ImageListTags` of `ModalClient`.
pub const IMAGE_LIST_TAGS: Rpc<crate::client::ImageListTagsRequest, crate::client::ImageListTagsResponse> = Rpc::new("/modal.client.ModalClient/ImageListTags");
/// `ImageNameDelete` of `ModalClient`.
pub const IMAGE_NAME_DELETE: Rpc<crate::client::ImageNameDeleteRequest, ()> = Rpc::new("/modal.client.ModalClient/ImageNameDelete");
/// `ImagePublish` of `ModalClient`.
pub const IMAGE_PUBLISH: Rpc<crate::client::ImagePublishRequest, crate::client::ImagePublishResponse> = Rpc::new("/modal.client.ModalClient/ImagePublish");
/// `ImageTagRevisions` of `ModalClient`.
pub const IMAGE_TAG_REVISIONS: Rpc<crate::client::ImageTagRevisionsRequest, crate::client::ImageTagRevisionsResponse> = Rpc::new("/modal.client.ModalClient/ImageTagRevisions");
/// `MountBatchedCheckExistence` of `ModalClient`.
pub const MOUNT_BATCHED_CHECK_EXISTENCE: Rpc<crate::client::MountBatchedCheckExistenceRequest, crate::client::MountBatchedCheckExistenceResponse> = Rpc::new("/modal.client.ModalClient/MountBatchedCheckExistence");
/// `MountGetOrCreate` of `ModalClient`.
pub const MOUNT_GET_OR_CREATE: Rpc<crate::client::MountGetOrCreateRequest, crate::client::MountGetOrCreateResponse> = Rpc::new("/modal.client.ModalClient/MountGetOrCreate");
/// `MountPutFile` of `ModalClient`.
pub const MOUNT_PUT_FILE: Rpc<crate::client::MountPutFileRequest, crate::client::MountPutFileResponse> = Rpc::new("/modal.client.ModalClient/MountPutFile");
/// `PersistentSandboxCreate` of `ModalClient`.
pub const PERSISTENT_SANDBOX_CREATE: Rpc<crate::client::PersistentSandboxCreateRequest, crate::client::PersistentSandboxCreateResponse> = Rpc::new("/modal.client.ModalClient/PersistentSandboxCreate");
/// `PersistentSandboxGet` of `ModalClient`.
pub const PERSISTENT_SANDBOX_GET: Rpc<crate::client::PersistentSandboxGetRequest, crate::client::PersistentSandboxGetResponse> = Rpc::new("/modal.client.ModalClient/PersistentSandboxGet");
/// `PersistentSandboxResume` of `ModalClient`.
pub const PERSISTENT_SANDBOX_RESUME: Rpc<crate::client::PersistentSandboxResumeRequest, crate::client::PersistentSandboxResumeResponse> = Rpc::new("/modal.client.ModalClient/PersistentSandboxResume");
/// `PersistentSandboxTerminate` of `ModalClient`.
pub const PERSISTENT_SANDBOX_TERMINATE: Rpc<crate::client::PersistentSandboxTerminateRequest, crate::client::PersistentSandboxTerminateResponse> = Rpc::new("/modal.client.ModalClient/PersistentSandboxTerminate");
/// `PersistentSandboxTunnelsList` of `ModalClient`.
pub const PERSISTENT_SANDBOX_TUNNELS_LIST: Rpc<crate::client::PersistentSandboxTunnelsListRequest, crate::client::PersistentSandboxTunnelsListResponse> = Rpc::new("/modal.client.ModalClient/PersistentSandboxTunnelsList");
/// `ProxyGet` of `ModalClient`.
pub const PROXY_GET: Rpc<crate::client::ProxyGetRequest, crate::client::ProxyGetResponse> = Rpc::new("/modal.client.ModalClient/ProxyGet");
/// `SandboxContainerCreateV2` of `ModalClient`.
pub const SANDBOX_CONTAINER_CREATE_V2: Rpc<crate::client::SandboxContainerCreateV2Request, crate::client::SandboxContainerCreateV2Response> = Rpc::new("/modal.client.ModalClient/SandboxContainerCreateV2");
/// `SandboxCreate` of `ModalClient`.
pub const SANDBOX_CREATE: Rpc<crate::client::SandboxCreateRequest, crate::client::SandboxCreateResponse> = Rpc::new("/modal.client.ModalClient/SandboxCreate");
/// `SandboxCreateConnectToken` of `ModalClient`.
pub const SANDBOX_CREATE_CONNECT_TOKEN: Rpc<crate::client::SandboxCreateConnectTokenRequest, crate::client::SandboxCreateConnectTokenResponse> = Rpc::new("/modal.client.ModalClient/SandboxCreateConnectToken");
/// `SandboxCreateConnectTokenV2` of `ModalClient`.
pub const SANDBOX_CREATE_CONNECT_TOKEN_V2: Rpc<crate::client::SandboxCreateConnectTokenRequest, crate::client::SandboxCreateConnectTokenResponse> = Rpc::new("/modal.client.ModalClient/SandboxCreateConnectTokenV2");
/// `SandboxCreateV2` of `ModalClient`.
pub const SANDBOX_CREATE_V2: Rpc<crate::client::SandboxCreateV2Request, crate::client::SandboxCreateV2Response> = Rpc::new("/modal.client.ModalClient/SandboxCreateV2");
/// `SandboxGetCommandRouterAccess` of `ModalClient`.
pub const SANDBOX_GET_COMMAND_ROUTER_ACCESS: Rpc<crate::client::SandboxGetCommandRouterAccessRequest, crate::client::SandboxGetCommandRouterAccessResponse> = Rpc::new("/modal.client.ModalClient/SandboxGetCommandRouterAccess");
/// `SandboxGetExitSnapshot` of `ModalClient`.
pub const SANDBOX_GET_EXIT_SNAPSHOT: Rpc<crate::client::SandboxGetExitSnapshotRequest, crate::client::SandboxGetExitSnapshotResponse> = Rpc::new("/modal.client.ModalClient/SandboxGetExitSnapshot");
/// `SandboxGetExitSnapshotV2` of `ModalClient`.
pub const SANDBOX_GET_EXIT_SNAPSHOT_V2: Rpc<crate::client::SandboxGetExitSnapshotRequest, crate::client::SandboxGetExitSnapshotResponse> = Rpc::new("/modal.client.ModalClient/SandboxGetExitSnapshotV2");
/// `SandboxGetFromName` of `ModalClient`.
pub const SANDBOX_GET_FROM_NAME: Rpc<crate::client::SandboxGetFromNameRequest, crate::client::SandboxGetFromNameResponse> = Rpc::new("/modal.client.ModalClient/SandboxGetFromName");
/// `SandboxGetFromNameV2` of `ModalClient`.
pub const SANDBOX_GET_FROM_NAME_V2: Rpc<crate::client::SandboxGetFromNameRequest, crate::client::SandboxGetFromNameResponse> = Rpc::new("/modal.client.ModalClient/SandboxGetFromNameV2");
/// `SandboxGetLogs` of `ModalClient`.
pub const SANDBOX_GET_LOGS: Rpc<crate::client::SandboxGetLogsRequest, crate::client::TaskLogsBatch> = Rpc::new("/modal.client.ModalClient/SandboxGetLogs");
/// `SandboxGetResourceUsage` of `ModalClient`.
pub const SANDBOX_GET_RESOURCE_USAGE: Rpc<crate::client::SandboxGetResourceUsageRequest, crate::client::SandboxGetResourceUsageResponse> = Rpc::new("/modal.client.ModalClient/SandboxGetResourceUsage");
/// `SandboxGetStats` of `ModalClient`.
pub const SANDBOX_GET_STATS: Rpc<crate::client::SandboxGetStatsRequest, crate::client::SandboxGetStatsResponse> = Rpc::new("/modal.client.ModalClient/SandboxGetStats");
/// `SandboxGetStatsV2` of `ModalClient`.
pub const SANDBOX_GET_STATS_V2: Rpc<crate::client::SandboxGetStatsRequest, crate::client::SandboxGetStatsResponse> = Rpc::new("/modal.client.ModalClient/SandboxGetStatsV2");
/// `SandboxGetTaskId` of `ModalClient`.
pub const SANDBOX_GET_TASK_ID: Rpc<crate::client::SandboxGetTaskIdRequest, crate::client::SandboxGetTaskIdResponse> = Rpc::new("/modal.client.ModalClient/SandboxGetTaskId");
/// `SandboxGetTaskIdV2` of `ModalClient`.
pub const SANDBOX_GET_TASK_ID_V2: Rpc<crate::client::SandboxGetTaskIdRequest, crate::client::SandboxGetTaskIdResponse> = Rpc::new("/modal.client.ModalClient/SandboxGetTaskIdV2");
/// `SandboxGetTunnels` of `ModalClient`.
pub const SANDBOX_GET_TUNNELS: Rpc<crate::client::SandboxGetTunnelsRequest, crate::client::SandboxGetTunnelsResponse> = Rpc::new("/modal.client.ModalClient/SandboxGetTunnels");
/// `SandboxGetTunnelsV2` of `ModalClient`.
pub const SANDBOX_GET_TUNNELS_V2: Rpc<crate::client::SandboxGetTunnelsRequest, crate::client::SandboxGetTunnelsResponse> = Rpc::new("/modal.client.ModalClient/SandboxGetTunnelsV2");
/// `SandboxList` of `ModalClient`.
pub const SANDBOX_LIST: Rpc<crate::client::SandboxListRequest, crate::client::SandboxListResponse> = Rpc::new("/modal.client.ModalClient/SandboxList");
/// `SandboxListV2` of `ModalClient`.
pub const SANDBOX_LIST_V2: Rpc<crate::client::SandboxListRequest, crate::client::SandboxListResponse> = Rpc::new("/modal.client.ModalClient/SandboxListV2");
/// `SandboxRestore` of `ModalClient`.
pub const SANDBOX_RESTORE: Rpc<crate::client::SandboxRestoreRequest, crate::client::SandboxRestoreResponse> = Rpc::new("/modal.client.ModalClient/SandboxRestore");
/// `SandboxRestoreV2` of `ModalClient`.
pub const SANDBOX_RESTORE_V2: Rpc<crate::client::SandboxRestoreV2Request, crate::client::SandboxRestoreV2Response> = Rpc::new("/modal.client.ModalClient/SandboxRestoreV2");
/// `SandboxSetName` of `ModalClient`.
pub const SANDBOX_SET_NAME: Rpc<crate::client::SandboxSetNameRequest, crate::client::SandboxSetNameResponse> = Rpc::new("/modal.client.ModalClient/SandboxSetName");
/// `SandboxSetOutboundPolicy` of `ModalClient`.
pub const SANDBOX_SET_OUTBOUND_POLICY: Rpc<crate::client::SandboxSetOutboundPolicyRequest, crate::client::SandboxSetOutboundPolicyResponse> = Rpc::new("/modal.client.ModalClient/SandboxSetOutboundPolicy");
/// `SandboxSetOutboundPolicyV2` of `ModalClient`.
pub const SANDBOX_SET_OUTBOUND_POLICY_V2: Rpc<crate::client::SandboxSetOutboundPolicyRequest, crate::client::SandboxSetOutboundPolicyResponse> = Rpc::new("/modal.client.ModalClient/SandboxSetOutboundPolicyV2");
/// `SandboxSnapshot` of `ModalClient`.
pub const SANDBOX_SNAPSHOT: Rpc<crate::client::SandboxSnapshotRequest, crate::client::SandboxSnapshotResponse> = Rpc::new("/modal.client.ModalClient/SandboxSnapshot");
/// `SandboxSnapshotFs` of `ModalClient`.
pub const SANDBOX_SNAPSHOT_FS: Rpc<crate::client::SandboxSnapshotFsRequest, crate::client::SandboxSnapshotFsResponse> = Rpc::new("/modal.client.ModalClient/SandboxSnapshotFs");
/// `SandboxSnapshotFsAsync` of `ModalClient`.
pub const SANDBOX_SNAPSHOT_FS_ASYNC: Rpc<crate::client::SandboxSnapshotFsAsyncRequest, crate::client::SandboxSnapshotFsAsyncResponse> = Rpc::new("/modal.client.ModalClient/SandboxSnapshotFsAsync");
/// `SandboxSnapshotFsAsyncGet` of `ModalClient`.
pub const SANDBOX_SNAPSHOT_FS_ASYNC_GET: Rpc<crate::client::SandboxSnapshotFsAsyncGetRequest, crate::client::SandboxSnapshotFsResponse> = Rpc::new("/modal.client.ModalClient/SandboxSnapshotFsAsyncGet");
/// `SandboxSnapshotGet` of `ModalClient`.
pub const SANDBOX_SNAPSHOT_GET: Rpc<crate::client::SandboxSnapshotGetRequest, crate::client::SandboxSnapshotGetResponse> = Rpc::new("/modal.client.ModalClient/SandboxSnapshotGet");
/// `SandboxSnapshotWait` of `ModalClient`.
pub const SANDBOX_SNAPSHOT_WAIT: Rpc<crate::client::SandboxSnapshotWaitRequest, crate::client::SandboxSnapshotWaitResponse> = Rpc::new("/modal.client.ModalClient/SandboxSnapshotWait");
/// `SandboxStdinWrite` of `ModalClient`.
pub const SANDBOX_STDIN_WRITE: Rpc<crate::client::SandboxStdinWriteRequest, crate::client::SandboxStdinWriteResponse> = Rpc::new("/modal.client.ModalClient/SandboxStdinWrite");
/// `SandboxTagsGet` of `ModalClient`.
pub const SANDBOX_TAGS_GET: Rpc<crate::client::SandboxTagsGetRequest, crate::client::SandboxTagsGetResponse> = Rpc::new("/modal.client.ModalClient/SandboxTagsGet");
/// `SandboxTagsGetV2` of `ModalClient`.
pub const SANDBOX_TAGS_GET_V2: Rpc<crate::client::SandboxTagsGetRequest, crate::client::SandboxTagsGetResponse> = Rpc::new("/modal.client.ModalClient/SandboxTagsGetV2");
/// `SandboxTagsSet` of `ModalClient`.
pub const SANDBOX_TAGS_SET: Rpc<crate::client::SandboxTagsSetRequest, ()> = Rpc::new("/modal.client.ModalClient/SandboxTagsSet");
/// `SandboxTagsSetV2` of `ModalClient`.
pub const SANDBOX_TAGS_SET_V2: Rpc<crate::client::SandboxTagsSetRequest, ()> = Rpc::new("/modal.client.ModalClient/SandboxTagsSetV2");
/// `SandboxTerminate` of `ModalClient`.
pub const SANDBOX_TERMINATE: Rpc<crate::client::SandboxTerminateRequest, crate::client::SandboxTerminateResponse> = Rpc::new("/modal.client.ModalClient/SandboxTerminate");
/// `SandboxTerminateV2` of `ModalClient`.
pub const SANDBOX_TERMINATE_V2: Rpc<crate::client::SandboxTerminateRequest, crate::client::SandboxTerminateResponse> = Rpc::new("/modal.client.ModalClient/SandboxTerminateV2");
/// `SandboxWait` of `ModalClient`.
pub const SANDBOX_WAIT: Rpc<crate::client::SandboxWaitRequest, crate::client::SandboxWaitResponse> = Rpc::new("/modal.client.ModalClient/SandboxWait");
/// `SandboxWaitUntilReady` of `ModalClient`.
pub const SANDBOX_WAIT_UNTIL_READY: Rpc<crate::client::SandboxWaitUntilReadyRequest, crate::client::SandboxWaitUntilReadyResponse> = Rpc::new("/modal.client.ModalClient/SandboxWaitUntilReady");
/// `SandboxWaitV2` of `ModalClient`.
pub const SANDBOX_WAIT_V2: Rpc<crate::client::SandboxWaitRequest, crate::client::SandboxWaitResponse> = Rpc::new("/modal.client.ModalClient/SandboxWaitV2");
/// `SecretDelete` of `ModalClient`.
pub const SECRET_DELETE: Rpc<crate::client::SecretDeleteRequest, ()> = Rpc::new("/modal.client.ModalClient/SecretDelete");
/// `SecretGetInfo` of `ModalClient`.
pub const SECRET_GET_INFO: Rpc<crate::client::SecretGetInfoRequest, crate::client::SecretGetInfoResponse> = Rpc::new("/modal.client.ModalClient/SecretGetInfo");
/// `SecretGetOrCreate` of `ModalClient`.
pub const SECRET_GET_OR_CREATE: Rpc<crate::client::SecretGetOrCreateRequest, crate::client::SecretGetOrCreateResponse> = Rpc::new("/modal.client.ModalClient/SecretGetOrCreate");
/// `SecretList` of `ModalClient`.
pub const SECRET_LIST: Rpc<crate::client::SecretListRequest, crate::client::SecretListResponse> = Rpc::new("/modal.client.ModalClient/SecretList");
/// `TaskGetCommandRouterAccess` of `ModalClient`.
pub const TASK_GET_COMMAND_ROUTER_ACCESS: Rpc<crate::client::TaskGetCommandRouterAccessRequest, crate::client::TaskGetCommandRouterAccessResponse> = Rpc::new("/modal.client.ModalClient/TaskGetCommandRouterAccess");
/// `TaskGetInfo` of `ModalClient`.
pub const TASK_GET_INFO: Rpc<crate::client::TaskGetInfoRequest, crate::client::TaskGetInfoResponse> = Rpc::new("/modal.client.ModalClient/TaskGetInfo");
/// `TaskList` of `ModalClient`.
pub const TASK_LIST: Rpc<crate::client::TaskListRequest, crate::client::TaskListResponse> = Rpc::new("/modal.client.ModalClient/TaskList");
/// `VolumeCopyFiles` of `ModalClient`.
pub const VOLUME_COPY_FILES: Rpc<crate::client::VolumeCopyFilesRequest, ()> = Rpc::new("/modal.client.ModalClient/VolumeCopyFiles");
/// `VolumeCopyFiles2` of `ModalClient`.
pub const VOLUME_COPY_FILES2: Rpc<crate::client::VolumeCopyFiles2Request, ()> = Rpc::new("/modal.client.ModalClient/VolumeCopyFiles2");
/// `VolumeDelete` of `ModalClient`.
pub const VOLUME_DELETE: Rpc<crate::client::VolumeDeleteRequest, ()> = Rpc::new("/modal.client.ModalClient/VolumeDelete");
/// `VolumeGetById` of `ModalClient`.
pub const VOLUME_GET_BY_ID: Rpc<crate::client::VolumeGetByIdRequest, crate::client::VolumeGetByIdResponse> = Rpc::new("/modal.client.ModalClient/VolumeGetById");
/// `VolumeGetFile2` of `ModalClient`.
pub const VOLUME_GET_FILE2: Rpc<crate::client::VolumeGetFile2Request, crate::client::VolumeGetFile2Response> = Rpc::new("/modal.client.ModalClient/VolumeGetFile2");
/// `VolumeGetOrCreate` of `ModalClient`.
pub const VOLUME_GET_OR_CREATE: Rpc<crate::client::VolumeGetOrCreateRequest, crate::client::VolumeGetOrCreateResponse> = Rpc::new("/modal.client.ModalClient/VolumeGetOrCreate");
/// `VolumeHeartbeat` of `ModalClient`.
pub const VOLUME_HEARTBEAT: Rpc<crate::client::VolumeHeartbeatRequest, ()> = Rpc::new("/modal.client.ModalClient/VolumeHeartbeat");
/// `VolumeList` of `ModalClient`.
pub const VOLUME_LIST: Rpc<crate::client::VolumeListRequest, crate::client::VolumeListResponse> = Rpc::new("/modal.client.ModalClient/VolumeList");
/// `VolumeListFiles` of `ModalClient`.
pub const VOLUME_LIST_FILES: Rpc<crate::client::VolumeListFilesRequest, crate::client::VolumeListFilesResponse> = Rpc::new("/modal.client.ModalClient/VolumeListFiles");
/// `VolumeListFiles2` of `ModalClient`.
pub const VOLUME_LIST_FILES2: Rpc<crate::client::VolumeListFiles2Request, crate::client::VolumeListFiles2Response> = Rpc::new("/modal.client.ModalClient/VolumeListFiles2");
/// `VolumePutFiles` of `ModalClient`.
pub const VOLUME_PUT_FILES: Rpc<crate::client::VolumePutFilesRequest, ()> = Rpc::new("/modal.client.ModalClient/VolumePutFiles");
/// `VolumePutFiles2` of `ModalClient`.
pub const VOLUME_PUT_FILES2: Rpc<crate::client::VolumePutFiles2Request, crate::client::VolumePutFiles2Response> = Rpc::new("/modal.client.ModalClient/VolumePutFiles2");
/// `VolumeRemoveFile` of `ModalClient`.
pub const VOLUME_REMOVE_FILE: Rpc<crate::client::VolumeRemoveFileRequest, ()> = Rpc::new("/modal.client.ModalClient/VolumeRemoveFile");
/// `VolumeRemoveFile2` of `ModalClient`.
pub const VOLUME_REMOVE_FILE2: Rpc<crate::client::VolumeRemoveFile2Request, ()> = Rpc::new("/modal.client.ModalClient/VolumeRemoveFile2");
/// `VolumeRename` of `ModalClient`.
pub const VOLUME_RENAME: Rpc<crate::client::VolumeRenameRequest, ()> = Rpc::new("/modal.client.ModalClient/VolumeRename");
/// `SandboxStdinWriteV2` of `TaskCommandRouter`.
pub const SANDBOX_STDIN_WRITE_V2: Rpc<crate::task_command_router::SandboxStdinWriteV2Request, crate::task_command_router::SandboxStdinWriteV2Response> = Rpc::new("/modal.task_command_router.TaskCommandRouter/SandboxStdinWriteV2");
/// `SandboxStdioReadV2` of `TaskCommandRouter`.
pub const SANDBOX_STDIO_READ_V2: Rpc<crate::task_command_router::SandboxStdioReadV2Request, crate::task_command_router::SandboxStdioReadV2Response> = Rpc::new("/modal.task_command_router.TaskCommandRouter/SandboxStdioReadV2");
/// `SandboxWaitUntilReady` of `TaskCommandRouter`.
pub const SANDBOX_WAIT_UNTIL_READY_TCR: Rpc<crate::task_command_router::SandboxWaitUntilReadyTcrRequest, crate::task_command_router::SandboxWaitUntilReadyTcrResponse> = Rpc::new("/modal.task_command_router.TaskCommandRouter/SandboxWaitUntilReady");
/// `TaskContainerCreate` of `TaskCommandRouter`.
pub const TASK_CONTAINER_CREATE: Rpc<crate::task_command_router::TaskContainerCreateRequest, crate::task_command_router::TaskContainerCreateResponse> = Rpc::new("/modal.task_command_router.TaskCommandRouter/TaskContainerCreate");
/// `TaskContainerGet` of `TaskCommandRouter`.
pub const TASK_CONTAINER_GET: Rpc<crate::task_command_router::TaskContainerGetRequest, crate::task_command_router::TaskContainerGetResponse> = Rpc::new("/modal.task_command_router.TaskCommandRouter/TaskContainerGet");
/// `TaskContainerList` of `TaskCommandRouter`.
pub const TASK_CONTAINER_LIST: Rpc<crate::task_command_router::TaskContainerListRequest, crate::task_command_router::TaskContainerListResponse> = Rpc::new("/modal.task_command_router.TaskCommandRouter/TaskContainerList");
/// `TaskContainerTerminate` of `TaskCommandRouter`.
pub const TASK_CONTAINER_TERMINATE: Rpc<crate::task_command_router::TaskContainerTerminateRequest, crate::task_command_router::TaskContainerTerminateResponse> = Rpc::new("/modal.task_command_router.TaskCommandRouter/TaskContainerTerminate");
/// `TaskContainerWait` of `TaskCommandRouter`.
pub const TASK_CONTAINER_WAIT: Rpc<crate::task_command_router::TaskContainerWaitRequest, crate::task_command_router::TaskContainerWaitResponse> = Rpc::new("/modal.task_command_router.TaskCommandRouter/TaskContainerWait");
/// `TaskExecPoll` of `TaskCommandRouter`.
pub const TASK_EXEC_POLL: Rpc<crate::task_command_router::TaskExecPollRequest, crate::task_command_router::TaskExecPollResponse> = Rpc::new("/modal.task_command_router.TaskCommandRouter/TaskExecPoll");
/// `TaskExecStart` of `TaskCommandRouter`.
pub const TASK_EXEC_START: Rpc<crate::task_command_router::TaskExecStartRequest, crate::task_command_router::TaskExecStartResponse> = Rpc::new("/modal.task_command_router.TaskCommandRouter/TaskExecStart");
/// `TaskExecStdinStatus` of `TaskCommandRouter`.
pub const TASK_EXEC_STDIN_STATUS: Rpc<crate::task_command_router::TaskExecStdinStatusRequest, crate::task_command_router::TaskExecStdinStatusResponse> = Rpc::new("/modal.task_command_router.TaskCommandRouter/TaskExecStdinStatus");
/// `TaskExecStdinWrite` of `TaskCommandRouter`.
pub const TASK_EXEC_STDIN_WRITE: Rpc<crate::task_command_router::TaskExecStdinWriteRequest, crate::task_command_router::TaskExecStdinWriteResponse> = Rpc::new("/modal.task_command_router.TaskCommandRouter/TaskExecStdinWrite");
/// `TaskExecStdinWriteStream` of `TaskCommandRouter`.
pub const TASK_EXEC_STDIN_WRITE_STREAM: Rpc<crate::task_command_router::TaskExecStdinWriteStreamRequest, crate::task_command_router::TaskExecStdinWriteStreamResponse> = Rpc::new("/modal.task_command_router.TaskCommandRouter/TaskExecStdinWriteStream");
/// `TaskExecStdioRead` of `TaskCommandRouter`.
pub const TASK_EXEC_STDIO_READ: Rpc<crate::task_command_router::TaskExecStdioReadRequest, crate::task_command_router::TaskExecStdioReadResponse> = Rpc::new("/modal.task_command_router.TaskCommandRouter/TaskExecStdioRead");
/// `TaskExecWait` of `TaskCommandRouter`.
pub const TASK_EXEC_WAIT: Rpc<crate::task_command_router::TaskExecWaitRequest, crate::task_command_router::TaskExecWaitResponse> = Rpc::new("/modal.task_command_router.TaskCommandRouter/TaskExecWait");
/// `TaskMountDirectory` of `TaskCommandRouter`.
pub const TASK_MOUNT_DIRECTORY: Rpc<crate::task_command_router::TaskMountDirectoryRequest, ()> = Rpc::new("/modal.task_command_router.TaskCommandRouter/TaskMountDirectory");
/// `TaskReloadVolumes` of `TaskCommandRouter`.
pub const TASK_RELOAD_VOLUMES: Rpc<crate::task_command_router::TaskReloadVolumesRequest, crate::task_command_router::TaskReloadVolumesResponse> = Rpc::new("/modal.task_command_router.TaskCommandRouter/TaskReloadVolumes");
/// `TaskSetNetworkAccess` of `TaskCommandRouter`.
pub const TASK_SET_NETWORK_ACCESS: Rpc<crate::task_command_router::TaskSetNetworkAccessRequest, crate::task_command_router::TaskSetNetworkAccessResponse> = Rpc::new("/modal.task_command_router.TaskCommandRouter/TaskSetNetworkAccess");
/// `TaskSetOutboundPolicy` of `TaskCommandRouter`.
pub const TASK_SET_OUTBOUND_POLICY: Rpc<crate::task_command_router::TaskSetExperimentalOutboundPolicyRequest, crate::task_command_router::TaskSetExperimentalOutboundPolicyResponse> = Rpc::new("/modal.task_command_router.TaskCommandRouter/TaskSetOutboundPolicy");
/// `TaskSnapshotDirectory` of `TaskCommandRouter`.
pub const TASK_SNAPSHOT_DIRECTORY: Rpc<crate::task_command_router::TaskSnapshotDirectoryRequest, crate::task_command_router::TaskSnapshotDirectoryResponse> = Rpc::new("/modal.task_command_router.TaskCommandRouter/TaskSnapshotDirectory");
/// `TaskSnapshotFilesystem` of `TaskCommandRouter`.
pub const TASK_SNAPSHOT_FILESYSTEM: Rpc<crate::task_command_router::TaskSnapshotFilesystemRequest, crate::task_command_router::TaskSnapshotFilesystemResponse> = Rpc::new("/modal.task_command_router.TaskCommandRouter/TaskSnapshotFilesystem");
/// `TaskSnapshotMemory` of `TaskCommandRouter`.
pub const TASK_SNAPSHOT_MEMORY: Rpc<crate::task_command_router::TaskSnapshotMemoryRequest, crate::task_command_router::TaskSnapshotMemoryResponse> = Rpc::new("/modal.task_command_router.TaskCommandRouter/TaskSnapshotMemory");
/// `TaskUnmountDirectory` of `TaskCommandRouter`.
pub const TASK_UNMOUNT_DIRECTORY: Rpc<crate::task_command_router::TaskUnmountDirectoryRequest, ()> = Rpc::new("/modal.task_command_router.TaskCommandRouter/TaskUnmountDirectory");
