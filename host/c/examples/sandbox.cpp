// The same in C++: a call is a std::future, which a callback completes.
#include <future>
#include <iostream>
#include <memory>
#include <stdexcept>
#include <string>

#include "sandbox_host.h"

struct Reply {
    std::shared_ptr<void> call;  // frees the call with the last copy
    sandbox_call handle;
    std::string operator[](const char *pointer) const {
        const char *value = sandbox_call_value(handle, pointer, nullptr);
        return value ? value : "";
    }
    std::string part(size_t index) const {
        size_t size = 0;
        const void *bytes = sandbox_call_part(handle, index, &size);
        return bytes ? std::string(static_cast<const char *>(bytes), size) : "";
    }
};

// Gets the completed call in a thread of the library. No exception may leave it.
extern "C" void completed(sandbox_call handle, void *context) noexcept {
    std::unique_ptr<std::promise<Reply>> promise(static_cast<std::promise<Reply> *>(context));
    Reply reply{std::shared_ptr<void>(nullptr, [handle](void *) { sandbox_call_free(handle); }), handle};
    if (sandbox_call_status(handle) == SANDBOX_OK) return promise->set_value(reply);
    promise->set_exception(std::make_exception_ptr(std::runtime_error(reply["/message"])));
}

int main(int argc, char **argv) try {
    if (argc != 2) return 2;
    std::shared_ptr<sandbox_host> host(new sandbox_host(sandbox_host_open()),
                                       [](sandbox_host *host) { sandbox_host_close(*host), delete host; });
    auto call = [&](const std::string &method, const std::string &arguments, const std::string &data = "") {
        auto promise = std::make_unique<std::promise<Reply>>();
        auto reply = promise->get_future();
        if (!sandbox_call_start_callback(*host, method.c_str(), arguments.c_str(), data.data(), data.size(), completed,
                                         promise.get()))
            throw std::runtime_error(sandbox_last_error());
        promise.release();
        return reply;
    };
    std::string provider = call("provider.open", R"({"component": ")" + std::string(argv[1]) + "\"}").get()["/provider"];
    auto created = call("sandbox.create", "{\"provider\": " + provider + R"(, "spec": {"image": "debian"}})").get();
    std::string at = "{\"provider\": " + provider + R"(, "sandbox": ")" + created["/info/id"] + "\"";
    std::string line = "for i in 1 2 3; do echo line $i; sleep 0.1; done; exit 7";
    std::string process = call("process.start", at + R"(, "command": {"shell": ")" + line + "\"}}").get()["/process"];
    auto read = [&] { return call("process.read", "{\"process\": " + process + R"(, "stream": "stdout"})").get(); };
    for (auto piece = read(); piece["/end"] != "true"; piece = read()) std::cout << piece.part(0) << std::flush;
    std::cout << "exit code " << call("process.wait", "{\"process\": " + process + "}").get()["/exited"] << "\n";
    call("file.write", at + R"(, "path": "/srv/hello"})", "hello from C++\n").get();
    std::cout << call("file.read", at + R"(, "path": "/srv/hello"})").get().part(0);
    call("sandbox.terminate", at + "}").get();
    std::cout << "terminated\n";
} catch (const std::exception &error) {
    std::cerr << error.what() << "\n";
    return 1;
}
