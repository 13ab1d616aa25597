// A callback in C++ that throws, and catches the exception before it leaves the callback.
#include <future>
#include <stdexcept>

#include "sandbox_host.h"

namespace {

void fail_with_care(sandbox_call call, void *context) noexcept {
    auto caught = static_cast<std::promise<bool> *>(context);
    try {
        sandbox_call_free(call);
        if (sandbox_call_status(call) == SANDBOX_INVALID) throw std::runtime_error("the call was freed");
        caught->set_value(false);
    } catch (const std::exception &) {
        caught->set_value(true);
    }
}

}  // namespace

extern "C" bool cpp_callback_catches(sandbox_host host) {
    std::promise<bool> caught;
    auto result = caught.get_future();
    if (!sandbox_call_start_callback(host, "version", nullptr, nullptr, 0, fail_with_care, &caught)) return false;
    return result.wait_for(std::chrono::seconds(30)) == std::future_status::ready && result.get();
}
