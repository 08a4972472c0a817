// thread.cpp - a thread as the pool needs it.
#include "thread.hpp"

#include <sys/resource.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <memory>
#include <system_error>

#include "log.hpp"
#include "signal_mask.hpp"

namespace offgil {
namespace {

// What CPython asks for where the default is less, as the 128 KiB of musl.
constexpr std::size_t least_default = std::size_t{1024} * 1024;

struct start_block {
  std::string name;
  int nice;
  std::function<void()> body;
};

// To what the kernel keeps of a name. What tells the threads of one pool apart stands behind the last hyphen
// or underscore: it is kept, and the pool's own name is cut.
std::string shortened(const std::string& name) {
  constexpr std::size_t kernel_limit = 15;
  if (name.size() <= kernel_limit) return name;
  const std::size_t separator = name.find_last_of("-_");
  const std::string suffix = separator == std::string::npos ? "" : name.substr(separator);
  if (suffix.size() >= kernel_limit) return name.substr(0, kernel_limit);
  return name.substr(0, kernel_limit - suffix.size()) + suffix;
}

void add_niceness(int nice) noexcept {
  // On Linux the niceness is the thread's own; the calling thread is meant by id 0.
  errno = 0;
  const int inherited = ::getpriority(PRIO_PROCESS, 0);
  if (errno != 0 || ::setpriority(PRIO_PROCESS, 0, inherited + nice) != 0)
    log::write(log::level::warn, "cannot change a worker's niceness: the worker keeps its creator's");
}

void* enter(void* argument) {
  const std::unique_ptr<start_block> start(static_cast<start_block*>(argument));
  ::pthread_setname_np(::pthread_self(), start->name.c_str());
  if (start->nice != 0) add_niceness(start->nice);
  start->body();
  return nullptr;
}

void set_stack_size(pthread_attr_t& of, std::size_t wanted) noexcept {
  if (wanted == 0) {
    ::pthread_attr_getstacksize(&of, &wanted);
    wanted = std::max(wanted, least_default);
  }
  ::pthread_attr_setstacksize(&of, wanted);
}

class signals_blocked {
 public:
  signals_blocked() noexcept { signal_mask::of_all_but_faults().apply(); }
  ~signals_blocked() { before_.apply(); }
  signals_blocked(const signals_blocked&) = delete;
  signals_blocked& operator=(const signals_blocked&) = delete;

 private:
  const signal_mask before_ = signal_mask::of_this_thread();
};

}  // namespace

thread::thread(const std::string& name, attributes with, std::function<void()> body) {
  auto start = std::make_unique<start_block>(start_block{shortened(name), with.nice, std::move(body)});
  pthread_attr_t posix;
  ::pthread_attr_init(&posix);
  set_stack_size(posix, with.stack_size);
  int error = 0;
  {
    const signals_blocked inherited_by_the_thread;
    error = ::pthread_create(&handle_, &posix, &enter, start.get());
  }
  ::pthread_attr_destroy(&posix);
  if (error != 0)
    throw std::system_error(error, std::generic_category(), "cannot start thread '" + name + "'");
  joinable_ = true;
  static_cast<void>(start.release());  // the thread owns it now
}

thread::~thread() { join(); }

void thread::join() noexcept {
  if (!joinable_) return;
  joinable_ = false;
  ::pthread_join(handle_, nullptr);
}

}  // namespace offgil
