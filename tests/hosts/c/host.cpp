// Runs a provider component with the C++ classes over wasmtime's C API, and makes the checks of the other stock hosts.
//
//     host COMPONENT IMAGE     # with the variables that `sandbox-host gateway` prints, or DOCKER_HOST
//
// IMAGE is the reference of an image in a registry. wasmtime's HTTP client speaks HTTP/1.1 only and adds no
// credentials, so the provider for Modal needs the gateway. The provider for Docker needs none.

#include <algorithm>
#include <cstdlib>
#include <fstream>
#include <iostream>
#include <iterator>
#include <random>
#include <stdexcept>
#include <string>
#include <string_view>

#include <wasmtime.hh>
#include <wasmtime/component.hh>

namespace wit = wasmtime::component;
using wit::Val;
using Environment = std::vector<std::pair<std::string, std::string>>;

// Returns what a function of wasmtime returned. Throws its error.
template <typename T> static T get(wasmtime::Result<T> result) {
  if (!result)
    throw std::runtime_error(result.err().message());
  return result.ok();
}

static Val text(std::string_view text) { return Val::string(text); }
static Val none() { return wit::WitOption(std::nullopt); }
static Val some(Val value) { return wit::WitOption(std::move(value)); }
static Val list(std::vector<Val> values = {}) { return wit::List(std::move(values)); }
static Val variant(std::string_view name, std::optional<Val> payload = std::nullopt) {
  return wit::Variant(name, std::move(payload));
}
static Val pair(std::string_view name, std::string_view value) { return wit::Tuple({text(name), text(value)}); }

static Val bytes(std::string_view data) {
  std::vector<Val> values;
  for (unsigned char byte : data)
    values.emplace_back(static_cast<uint8_t>(byte));
  return list(std::move(values));
}

static std::string data_of(const Val &list) {
  std::string data;
  for (const Val &byte : list.get_list())
    data.push_back(static_cast<char>(byte.get_u8()));
  return data;
}

// Returns a field of a record by its name in the interface.
static const Val &field(const Val &record, std::string_view name) {
  for (const wit::RecordField &field : record.get_record())
    if (field.name() == name)
      return field.value();
  throw std::out_of_range("there is no field " + std::string(name));
}

// Returns a new id, such as every sandbox and command needs.
static Val fresh_id() {
  std::random_device random;
  std::string id;
  for (int i = 0; i < 32; i++)
    id.push_back("0123456789abcdef"[random() % 16]);
  return text(id);
}

// An error that a function of the interface returned.
struct Refused : std::runtime_error {
  std::string kind;
  explicit Refused(const Val &error)
      : std::runtime_error(std::string(field(error, "message").get_string())),
        kind(field(error, "kind").get_variant().discriminant()) {}
};

// An instance of the component. A call blocks it, so use one per thread.
class Provider {
  wasmtime::Engine engine;
  wasmtime::Store store;
  std::optional<wit::Instance> instance;

public:
  Provider(const std::string &path, const Environment &environment) : store(engine) {
    std::ifstream file(path, std::ios::binary);
    std::vector<uint8_t> code{std::istreambuf_iterator<char>(file), {}};
    wasmtime::WasiConfig wasi;
    wasi.env(environment);
    wasi.inherit_stderr();
    get(store.context().set_wasi(std::move(wasi)));
    // The classes have no function for this one.
    wasmtime_context_set_wasi_http(store.context().capi());
    wit::Linker linker(engine);
    get(linker.add_wasip2());
    get(linker.add_wasi_http());
    auto component = get(wit::Component::compile(engine, code));
    instance = get(linker.instantiate(store, component));
  }

  // Calls a function of an interface and returns its value. Throws `Refused` if it returns an error.
  Val call(std::string_view interface, std::string_view function, std::vector<Val> arguments = {}) {
    auto outer = instance->get_export_index(store, nullptr, "harness:sandbox/" + std::string(interface) + "@0.2.0");
    auto inner = outer ? instance->get_export_index(store, &*outer, function) : std::nullopt;
    if (!inner)
      throw std::out_of_range("the component does not export " + std::string(function));
    auto found = instance->get_func(store, *inner).value();
    std::vector<Val> results{Val(false)};
    get(found.call(store, arguments, results));
    get(found.post_return(store));
    const auto &result = results[0].get_result();
    if (!result.is_ok())
      throw Refused(*result.payload());
    return result.payload() ? *result.payload() : Val(false);
  }
};

static Val image(Val source) {
  return wit::Record({{"source", source},
                      {"commands", list()},
                      {"secrets", list()},
                      {"force", Val(false)},
                      {"builder-version", none()},
                      {"gpu", none()},
                      {"platform", none()},
                      {"extra", list()}});
}

static Val sandbox(Val image) {
  Val resources = wit::Record({{"cpu-request-millicores", none()},
                               {"cpu-limit-millicores", none()},
                               {"memory-request-mib", none()},
                               {"memory-limit-mib", none()},
                               {"disk-mib", none()},
                               {"gpu", none()}});
  Val network = wit::Record({{"outbound", variant("open")}, {"inbound-cidrs", list()}});
  return wit::Record({{"image", image},
                      {"entry-point", variant("keep-alive")},
                      {"user", none()},
                      {"env", list({pair("GREETING", "hello")})},
                      {"secrets", list()},
                      {"workdir", none()},
                      {"resources", resources},
                      {"lifetime", some(uint64_t{600'000})},
                      {"idle-timeout", none()},
                      {"regions", list()},
                      {"network", network},
                      {"ports", list()},
                      {"volumes", list()},
                      {"buckets", list()},
                      {"name", none()},
                      {"tags", list({pair("from", "c++")})},
                      {"readiness", none()},
                      {"sidecars", list()},
                      {"pty", none()},
                      {"proxy", none()},
                      {"key", some(fresh_id())},
                      {"options", list()},
                      {"extra", list()}});
}

static Val command(std::initializer_list<std::string_view> argv) {
  std::vector<Val> words;
  std::transform(argv.begin(), argv.end(), std::back_inserter(words), text);
  return wit::Record({{"id", fresh_id()},
                      {"argv", list(std::move(words))},
                      {"env", list()},
                      {"secrets", list()},
                      {"cwd", none()},
                      {"user", none()},
                      {"timeout", some(uint64_t{30'000})},
                      {"pty", none()},
                      {"stdout", Val::enum_("keep")},
                      {"stderr", Val::enum_("keep")},
                      {"merge-stderr", Val(false)},
                      {"container", none()},
                      {"extra", list()}});
}

static int passed = 0;

static void check(const std::string &what, bool holds) {
  if (!holds)
    throw std::runtime_error("failed: " + what);
  std::cout << "ok  " << what << "\n";
  passed++;
}

static void run(const std::string &component, const std::string &reference) {
  Environment environment;
  for (const char *name :
       {"MODAL_SERVER_URL", "MODAL_TOKEN_ID", "MODAL_TOKEN_SECRET", "MODAL_GRPC_WIRE", "DOCKER_HOST"})
    if (const char *value = std::getenv(name))
      environment.emplace_back(name, value);

  if (std::getenv("MODAL_TOKEN_ID")) {
    Environment wrong = environment;
    for (auto &[name, value] : wrong)
      if (name.find("TOKEN") != std::string::npos)
        value = "guess";
    std::string kind;
    try {
      Provider(component, wrong).call("sandbox-provider", "check");
    } catch (const Refused &error) {
      kind = error.kind;
    }
    check("a wrong gateway token is refused", kind == "unauthenticated");
  }

  Provider provider(component, environment);
  check("describe", !field(provider.call("sandbox-provider", "describe"), "name").get_string().empty());

  Val source = variant("registry", wit::Record({{"reference", text(reference)}, {"login", none()}}));
  Val progress = provider.call("images", "start-build", {image(source)});
  while (!field(progress, "image").get_option().value())
    progress = provider.call("images", "read-build", {field(progress, "cursor"), uint32_t{65536}, uint64_t{10'000}});
  Val built = field(*field(progress, "image").get_option().value(), "id");
  check("an image", built.get_string().size() > 3);

  Val made = provider.call("sandbox-provider", "create", {sandbox(image(variant("id", built)))});
  Val id = field(made, "id");
  check("a sandbox", id.get_string().size() > 3);

  // wasmtime limits a result to 128 MiB of values, and a byte of a list is a value of 48 bytes.
  Val limits = wit::Record({{"stdout-max", uint64_t{2 << 20}},
                            {"stderr-max", uint64_t{1 << 20}},
                            {"keep", Val::enum_("head")}});
  Val script = command({"sh", "-c", R"-(printf '%s %s' "$GREETING" "$(cat)"; echo err >&2; exit 7)-"});
  Val result = provider.call("exec", "run", {id, script, bytes("from stdin"), limits});
  const auto &verdict = field(result, "verdict").get_variant();
  check("the exit code", verdict.discriminant() == "exited" && verdict.value()->get_s32() == 7);
  check("standard output", data_of(field(field(result, "stdout"), "data")) == "hello from stdin");
  check("standard error", data_of(field(field(result, "stderr"), "data")) == "err\n");

  result = provider.call("exec", "run", {id, command({"head", "-c", "1000000", "/dev/zero"}), list(), limits});
  check("a million bytes", data_of(field(field(result, "stdout"), "data")) == std::string(1'000'000, '\0'));

  provider.call("sandbox-provider", "terminate", {id});
  Val end = provider.call("sandbox-provider", "wait", {id, uint64_t{30'000}});
  check("the end", end.get_option().value()->get_variant().discriminant() == "terminated");
  std::cout << passed << " passed, 0 failed\n";
}

int main(int count, char *arguments[]) {
  if (count != 3) {
    std::cerr << "usage: host COMPONENT IMAGE\n";
    return 2;
  }
  try {
    run(arguments[1], arguments[2]);
    return 0;
  } catch (const std::exception &error) {
    std::cerr << error.what() << "\n";
    return 1;
  }
}
