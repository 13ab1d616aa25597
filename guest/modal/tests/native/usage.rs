//! Tests of usage and cost reports, with responses that the emulator does not send.

use crate::script::{Answer, Provide as _, SANDBOX, Script, modal, ok, run};
use modal_proto::{
    client::{
        GenericResult, SandboxGetResourceUsageResponse, SandboxGetStatsRequest, SandboxGetStatsResponse,
        SandboxWaitResponse, StatsPercentile, StatsPercentileDistribution, generic_result::GenericStatus,
        sandbox_get_stats_response::ResourceStats,
    },
    prost::Message as _,
};
use sandbox_provider_kit::{
    api::wit::{Distribution, EndReason, ErrorKind},
    export::SandboxProvider as _,
};

/// The id of a sandbox of the older backend.
const OLD: &str = "sb-0123456789abcdefghijAB";

/// Sets the response to the next request for the totals.
fn uses(script: &Script) {
    let totals = SandboxGetResourceUsageResponse {
        cpu_core_nanosecs: 3_000_000_000,
        mem_gib_nanosecs: 2_000_000_000,
        gpu_nanosecs: 5_000_000,
        gpu_type: Some("H100".into()),
    };
    script.will("SandboxGetResourceUsage", ok(&totals));
}

#[test]
fn costs_are_told_also_after_the_end() {
    let points = |values: [f64; 2]| {
        let point = |(percentile_basis_points, value)| StatsPercentile { percentile_basis_points, value };
        vec![point((5000, values[0])), point((9990, values[1]))]
    };
    let repeated = StatsPercentileDistribution { unit: "cores".into(), percentiles: points([0.5, 2.0]) };
    let other = StatsPercentileDistribution { unit: "%".into(), percentiles: points([40.0, 90.0]) };
    let answer = SandboxGetStatsResponse {
        cost: Some("0.0031".into()),
        cost_by_resource: [("Memory", "0.0001"), ("CPU", "0.001"), ("H100", "0.002")]
            .map(|(name, cost)| (name.to_string(), cost.to_string()))
            .into(),
        num_datapoints: 4,
        cpu_cores: Some(ResourceStats { percentiles: points([0.5, 2.0]), mean: 0.75, max: 2.5 }),
        memory_gib: Some(ResourceStats { percentiles: points([0.25, 1.0]), mean: 0.5, max: 1.0 }),
        duration_hours: 0.5,
        billed_cpu_core_seconds: 12.5,
        billed_memory_gib_seconds: 3.0,
        percentile_stats: [("CPU Usage (cores)".into(), repeated), ("GPU Usage".into(), other)].into(),
        ..Default::default()
    };
    let methods = [(SANDBOX, "SandboxGetStatsV2", "SandboxWaitV2"), (OLD, "SandboxGetStats", "SandboxWait")];
    for (sandbox, method, wait) in methods {
        let script = modal();
        let result = GenericResult { status: GenericStatus::Terminated.into(), ..Default::default() };
        script.will(wait, ok(&SandboxWaitResponse { result: Some(result), ..Default::default() }));
        uses(&script);
        script.will(method, ok(&answer));
        let provider = script.provider();
        let end = run(provider.wait(sandbox, 1000)).expect("an answer");
        assert!(matches!(end, Some(EndReason::Terminated)), "{end:?}");
        let told = run(provider.report_usage(sandbox)).expect("a report");
        assert_eq!(
            (told.totals.cpu_core_millis, told.totals.memory_mib_millis, told.totals.gpu_millis),
            (3000, 2_048_000, 5)
        );
        assert_eq!(told.totals.extra, [("gpu".to_string(), "\"H100\"".to_string())]);
        assert_eq!(told.cost, Some(0.0031));
        let parts: Vec<_> = told.cost_by_resource.iter().map(|(name, cost)| (name.as_str(), *cost)).collect();
        assert_eq!(parts, [("CPU", 0.001), ("H100", 0.002), ("Memory", 0.0001)]);
        assert_eq!((told.billed_cpu_core_millis, told.billed_memory_mib_millis), (Some(12_500), Some(3_072_000)));
        assert_eq!(told.running, Some(1_800_000));
        let shown = |one: &Distribution| (one.name.clone(), one.unit.clone(), one.mean, one.max);
        let shown: Vec<_> = told.distributions.iter().map(shown).collect();
        let named = |name: &str, unit: &str, mean, max| (name.to_string(), unit.to_string(), mean, max);
        let cpu = named("cpu", "cores", Some(0.75), Some(2.5));
        assert_eq!(shown, [cpu, named("memory", "GiB", Some(0.5), Some(1.0)), named("GPU Usage", "%", None, None)]);
        assert_eq!(told.distributions[0].percentiles, [(50.0, 0.5), (99.9, 2.0)]);
        let calls = script.calls(method);
        assert_eq!(calls.len(), 1);
        let request = SandboxGetStatsRequest::decode(calls[0].body.clone()).expect("a request");
        assert_eq!((request.sandbox_id.as_str(), request.since, request.until), (sandbox, None, None));
    }
}

#[test]
fn a_server_without_costs_tells_the_totals() {
    let script = modal();
    uses(&script);
    script.will("SandboxGetStatsV2", Answer::Status(12, vec![]));
    let told = run(script.provider().report_usage(SANDBOX)).expect("a report");
    assert_eq!((told.totals.cpu_core_millis, told.totals.gpu_millis), (3000, 5));
    assert_eq!((told.cost, told.billed_cpu_core_millis, told.billed_memory_mib_millis), (None, None, None));
    assert_eq!((told.running, told.cost_by_resource.len(), told.distributions.len()), (None, 0, 0));
    assert_eq!(script.calls("SandboxGetStatsV2").len(), 1, "UNIMPLEMENTED is not worth a retry");
}

#[test]
fn no_cost_is_not_a_cost_of_nothing() {
    // The service knows the sandbox but has no sample of it yet.
    let script = modal();
    uses(&script);
    script.will("SandboxGetStatsV2", ok(&SandboxGetStatsResponse::default()));
    let told = run(script.provider().report_usage(SANDBOX)).expect("a report");
    assert_eq!((told.cost, told.billed_cpu_core_millis, told.running), (None, None, None));

    // A cost that is not a number and a rejected request are errors.
    for (answer, kind) in [
        (ok(&SandboxGetStatsResponse { cost: Some("a lot".into()), ..Default::default() }), ErrorKind::Internal),
        (Answer::Status(7, vec![]), ErrorKind::PermissionDenied),
        (Answer::Status(5, vec![]), ErrorKind::NotFound),
    ] {
        let script = modal();
        uses(&script);
        script.will("SandboxGetStatsV2", answer);
        let error = run(script.provider().report_usage(SANDBOX)).expect_err("no report");
        assert_eq!(std::mem::discriminant(&error.kind), std::mem::discriminant(&kind), "{error:?}");
    }
}
