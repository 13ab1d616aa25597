//! Exports spans and counters to a collector that is built from the OpenTelemetry protocol messages.

use std::{
    collections::HashMap,
    net::TcpListener,
    sync::{Arc, Mutex},
};

use opentelemetry_proto::tonic::{
    collector::{
        metrics::v1::{
            ExportMetricsServiceRequest, ExportMetricsServiceResponse,
            metrics_service_server::{MetricsService, MetricsServiceServer},
        },
        trace::v1::{
            ExportTraceServiceRequest, ExportTraceServiceResponse,
            trace_service_server::{TraceService, TraceServiceServer},
        },
    },
    common::v1::{KeyValue, any_value::Value},
    metrics::v1::{metric::Data, number_data_point},
    trace::v1::{Span, status::StatusCode},
};
use system_tests::{feed, stderr};
use tonic::{Request, Response, Status};

use super::shared;

/// Keeps the requests that it receives.
#[derive(Clone, Default)]
struct Collector {
    spans: Arc<Mutex<Vec<ExportTraceServiceRequest>>>,
    counters: Arc<Mutex<Vec<ExportMetricsServiceRequest>>>,
}

#[tonic::async_trait]
impl TraceService for Collector {
    async fn export(
        &self,
        request: Request<ExportTraceServiceRequest>,
    ) -> Result<Response<ExportTraceServiceResponse>, Status> {
        self.spans.lock().expect("the lock is poisoned").push(request.into_inner());
        Ok(Response::new(Default::default()))
    }
}

#[tonic::async_trait]
impl MetricsService for Collector {
    async fn export(
        &self,
        request: Request<ExportMetricsServiceRequest>,
    ) -> Result<Response<ExportMetricsServiceResponse>, Status> {
        self.counters.lock().expect("the lock is poisoned").push(request.into_inner());
        Ok(Response::new(Default::default()))
    }
}

fn attributes(of: &[KeyValue]) -> HashMap<&str, String> {
    let text = |pair: &KeyValue| match pair.value.as_ref().and_then(|value| value.value.as_ref()) {
        Some(Value::StringValue(text)) => text.clone(),
        other => format!("{other:?}"),
    };
    of.iter().map(|pair| (pair.key.as_str(), text(pair))).collect()
}

#[test]
fn spans_and_counters_reach_a_collector() {
    let collector = Collector::default();
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(1)
        .enable_all()
        .build()
        .expect("cannot create a runtime");
    let listener = TcpListener::bind("127.0.0.1:0").expect("cannot bind a port");
    let url = format!("http://{}", listener.local_addr().expect("no local address"));
    let served = collector.clone();
    runtime.spawn(async move {
        listener.set_nonblocking(true).expect("cannot configure the socket");
        let listener = tokio::net::TcpListener::from_std(listener).expect("cannot use the listener");
        tonic::transport::Server::builder()
            .add_service(TraceServiceServer::new(served.clone()))
            .add_service(MetricsServiceServer::new(served))
            .serve_with_incoming(tonic::transport::server::TcpIncoming::from(listener))
            .await
    });
    let run = |arguments: &[&str], variables: &[(&str, &str)]| {
        feed(shared().sandbox().args(arguments).envs(variables.iter().copied()), b"")
    };

    // Without the variable nothing is sent.
    let output = run(&["run", "--", "true"], &[]);
    assert!(output.status.success(), "{}", stderr(&output));
    assert!(collector.spans.lock().unwrap().is_empty() && collector.counters.lock().unwrap().is_empty());

    let collected = [("OTEL_EXPORTER_OTLP_ENDPOINT", url.as_str())];
    let output = run(&["run", "--", "sh", "-c", "exit 7"], &collected);
    assert_eq!((output.status.code(), stderr(&output).as_str()), (Some(7), ""));
    let sent = std::mem::take(&mut *collector.spans.lock().unwrap());
    let resource = sent[0].resource_spans[0].resource.as_ref().expect("no resource");
    assert_eq!(attributes(&resource.attributes)["service.name"], "sandbox");
    let spans: Vec<Span> = sent
        .into_iter()
        .flat_map(|request| request.resource_spans)
        .flat_map(|resource| resource.scope_spans)
        .flat_map(|scope| scope.spans)
        .collect();
    let command = spans.iter().find(|span| span.name == "command").expect("no span of the command");
    let calls: Vec<_> =
        spans.iter().filter(|span| span.name == "call").map(|s| (s, attributes(&s.attributes))).collect();
    let (create, _) =
        calls.iter().find(|(_, with)| with["what"] == "create the sandbox").expect("no span of the create");
    assert_eq!((&create.trace_id, &create.parent_span_id), (&command.trace_id, &command.span_id));
    assert!(create.end_time_unix_nano > create.start_time_unix_nano);
    let (_, started) =
        calls.iter().find(|(_, with)| with["what"].starts_with("start \"sh\" in")).expect("no span of the start");
    assert!(started["sandbox"].starts_with("sb-") && !started["exec"].is_empty(), "{started:?}");
    let of_exec = calls.iter().filter(|(_, with)| with.get("exec") == started.get("exec")).count();
    assert!(of_exec >= 2, "expected spans of the start and the output: {calls:?}");
    let text = format!("{spans:?}");
    assert!(!text.contains("as-emulator") && !text.contains("ak-emulator"), "the spans contain credentials: {text}");
    let sent = std::mem::take(&mut *collector.counters.lock().unwrap());
    let metrics =
        sent.into_iter().flat_map(|r| r.resource_metrics).flat_map(|r| r.scope_metrics).flat_map(|s| s.metrics);
    let calls: Vec<_> = metrics
        .filter(|metric| metric.name == "sandbox_host.calls")
        .filter_map(|metric| match metric.data {
            Some(Data::Sum(sum)) => sum.data_points.last().and_then(|point| point.value),
            _ => None,
        })
        .collect();
    let [.., number_data_point::Value::AsInt(calls)] = calls[..] else { panic!("no number of calls: {calls:?}") };
    assert!(calls >= 3, "{calls}");

    // Failed calls are marked as errors.
    let output = run(&["cat", "sb-01ABCDEFGHJKMNPQRSTVWXYZ01:/x"], &collected);
    assert_eq!(output.status.code(), Some(125));
    let sent = std::mem::take(&mut *collector.spans.lock().unwrap());
    let failed = sent
        .into_iter()
        .flat_map(|request| request.resource_spans)
        .flat_map(|resource| resource.scope_spans)
        .flat_map(|scope| scope.spans)
        .any(|span| span.status.is_some_and(|status| status.code() == StatusCode::Error));
    assert!(failed);
}

#[test]
fn an_unusable_collector_is_named_and_does_not_fail_the_command() {
    let run = |variables: &[(&str, &str)]| {
        feed(shared().sandbox().args(["run", "--", "echo", "hello"]).envs(variables.iter().copied()), b"")
    };
    // A port without a listener.
    let endpoint = ("OTEL_EXPORTER_OTLP_ENDPOINT", "http://127.0.0.1:1");
    let output = run(&[endpoint]);
    assert_eq!((output.status.code(), output.stdout.as_slice()), (Some(0), &b"hello\n"[..]));
    assert!(stderr(&output).contains("warning: the collector at OTEL_EXPORTER_OTLP_ENDPOINT did not accept all data"));
    for (variables, said) in [
        ([endpoint, ("OTEL_EXPORTER_OTLP_PROTOCOL", "http/protobuf")], "supports only grpc"),
        ([("OTEL_EXPORTER_OTLP_ENDPOINT", "not a url"), ("X", "")], "\"not a url\""),
    ] {
        let output = run(&variables);
        let text = stderr(&output);
        assert_eq!((output.status.code(), output.stdout.len()), (Some(125), 0), "{text}");
        assert!(text.contains(said) && text.contains("unset the variable"), "{text}");
    }
}
