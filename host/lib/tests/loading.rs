//! Loading: files that are not plugins and their errors, plugins of older versions, settings and profiles.

use crate::common::{extra, order, puppet};
use sandbox_host::types::SandboxSpec;
use sandbox_host::{Kind, Plugin, PluginFault, Provider};

async fn fault(bytes: impl Into<Vec<u8>>) -> (PluginFault, String) {
    let error = Plugin::from_bytes(bytes).await.unwrap_err();
    match error.kind() {
        Kind::Plugin(fault) => (fault.clone(), error.to_string()),
        other => panic!("{other:?}"),
    }
}

fn component(text: &str) -> Vec<u8> {
    wat::parse_str(text).unwrap()
}

#[tokio::test]
async fn what_is_wrong_with_a_file_is_said() {
    let error = Plugin::load("/does/not/exist.wasm").await.unwrap_err();
    assert_eq!(error.kind(), &Kind::Plugin(PluginFault::Missing));
    assert!(error.to_string().contains("/does/not/exist.wasm"), "{error}");

    for bytes in [&b""[..], b"\0as", b"#!/bin/sh\n", b"\x7fELF\x02\x01\x01\0"] {
        assert_eq!(fault(bytes).await.0, PluginFault::NotWasm);
    }
    let (kind, text) = fault(component("(module)")).await;
    assert_eq!(kind, PluginFault::CoreModule);
    assert!(text.contains("not a component"), "{text}");

    let (kind, text) = fault(component("(component)")).await;
    assert_eq!(kind, PluginFault::NoInterface);
    assert!(text.contains("its exports: nothing"), "{text}");

    let (kind, text) =
        fault(component("(component (instance $i) (export \"harness:sandbox/sandbox-provider@0.7.1\" (instance $i)))"))
            .await;
    assert_eq!(kind, PluginFault::OtherVersion);
    assert!(text.contains("0.7.1") && text.contains("0.2.0, 0.1.1 and 0.1.0"), "{text}");

    let (kind, text) = fault(component(
        "(component (import \"wasi:keyvalue/store@0.2.0-draft\" (instance)) (instance $i)
           (export \"harness:sandbox/sandbox-provider@0.1.0\" (instance $i)))",
    ))
    .await;
    assert_eq!(kind, PluginFault::Imports);
    assert!(text.contains("wasi:keyvalue/store"), "{text}");

    let (kind, text) =
        fault(component("(component (instance $i) (export \"harness:sandbox/sandbox-provider@0.1.0\" (instance $i)))"))
            .await;
    assert_eq!(kind, PluginFault::NoInterface, "{text}");

    let mut broken = std::fs::read(tokio::task::spawn_blocking(puppet).await.unwrap()).unwrap();
    broken.truncate(broken.len() / 2);
    assert_eq!(fault(broken).await.0, PluginFault::Invalid);
}

#[tokio::test]
async fn the_second_load_comes_from_the_cache() {
    let path = tokio::task::spawn_blocking(puppet).await.unwrap();
    let first = Plugin::load(path).await.unwrap();
    let second = Plugin::load(path).await.unwrap();
    assert!(second.from_cache() || std::env::var_os("HOME").is_none());
    assert_eq!(first.digest(), second.digest());
    assert_eq!(first.manifest().name, "puppet");
    assert!(first.exports().iter().any(|name| name == "harness:sandbox/sandbox-provider@0.1.0"));
    assert!(first.imports().iter().all(|name| name.starts_with("wasi:") || name.starts_with("harness:")));
}

/// The puppet is built against version 0.1.0, so all tests of this crate use the module of that version.
#[tokio::test]
async fn a_plugin_of_an_older_version_keeps_working() {
    let plugin = crate::common::plugin().await;
    assert_eq!(plugin.interface_version(), "0.1.0");
    assert_ne!(plugin.interface_version(), sandbox_host::INTERFACE_VERSION);
    let provider = crate::common::provider("http://127.0.0.1:1").await;
    assert_eq!(provider.describe().await.unwrap().name, "puppet");
    // The function is new in 0.1.1, so the plugin does not have it.
    let error = provider.check_spec(&SandboxSpec::default()).await.unwrap_err();
    assert_eq!((error.kind(), error.subject()), (&Kind::Unsupported, Some("check-spec")));
    // The plugin does not know the new parts of a report. The rest is the result of `stats`.
    let report = provider.sandbox("sb-1").usage_report().await.unwrap();
    assert_eq!((report.totals.cpu_core_millis, report.totals.gpu_millis, report.cost), (3, 5, None));
    assert!(error.to_string().contains("a version before harness:sandbox 0.1.1"), "{error}");
}

#[tokio::test]
async fn missing_credentials_are_named() {
    let plugin = crate::common::plugin().await;
    let builder = || Provider::builder(&plugin).inherit_env(false).env("HOME", "/nonexistent");
    let error = builder().build().await.unwrap_err();
    assert!(error.is_unauthenticated());
    let text = error.to_string();
    assert!(text.contains("PUPPET_TOKEN") && text.contains("~/.puppet.toml"), "{text}");
    assert!(builder().anonymous(true).build().await.is_ok());
    assert!(builder().env("PUPPET_TOKEN", "from-env").build().await.is_ok());
    let source = builder().credentials_from(|wish| {
        assert_eq!(wish.name, "token");
        Box::pin(async { Ok(Some("called-back".to_owned().into())) })
    });
    assert!(source.build().await.is_ok());
}

#[tokio::test]
async fn settings_come_from_the_profile_and_the_environment_wins() {
    let directory = tempfile::tempdir().unwrap();
    let file = directory.path().join("profiles.toml");
    std::fs::write(
        &file,
        "[one]\ntoken = 'secret-one-x'\nurl = 'http://127.0.0.1:1'\nplain = 'one'\n[two]\nactive = true\n\
         token = 'secret-two-x'\nplain = 'two'\n",
    )
    .unwrap();
    let plugin = crate::common::plugin().await;
    let builder =
        || Provider::builder(&plugin).inherit_env(false).env("PUPPET_CONFIG", file.to_str().unwrap().to_owned());
    let plain =
        async |provider: Provider| extra(&order(&provider, "env").await.unwrap(), "PUPPET_PLAIN").unwrap().to_owned();
    assert_eq!(plain(builder().build().await.unwrap()).await, "two");
    let one = builder().profile("one").build().await.unwrap();
    assert_eq!(one.grants()[0].origin.to_string(), "http://127.0.0.1:1");
    assert!(one.grants()[0].private_addresses);
    assert_eq!(plain(one).await, "one");
    assert_eq!(plain(builder().env("PUPPET_PLAIN", "set").build().await.unwrap()).await, "set");
    let error = builder().profile("three").build().await.unwrap_err();
    assert!(error.to_string().contains("three") && error.to_string().contains("one, two"), "{error}");
    let error = builder().env("PUPPET_URL", "no url").build().await.unwrap_err();
    assert!(error.to_string().contains("PUPPET_URL"), "{error}");
    // A line of the file may contain a credential, so the error does not quote it.
    std::fs::write(&file, "[one\ntoken = 'secret-one-x'").unwrap();
    let error = builder().build().await.unwrap_err();
    assert!(error.to_string().contains("line 1") && !error.to_string().contains("secret"), "{error}");
}
