// dispatcher.cpp - the thread that brings completions to Python code nobody else would bring them to.
#include "dispatcher.hpp"

#include <pybind11/pybind11.h>

#include <chrono>
#include <utility>

#include "thread_identity.hpp"

namespace offgil::python {

namespace py = pybind11;

namespace {

// How long what is not urgent waits for company.
constexpr std::chrono::milliseconds linger{20};

thread_local const dispatcher* this_dispatcher = nullptr;

}  // namespace

dispatcher::dispatcher(const std::string& name, std::atomic<std::uint64_t>& acquisitions)
    : acquisitions_(acquisitions), thread_(name + "-gil", 0, [this, name] { run(name + "-gil"); }) {}

void dispatcher::let_end() noexcept {
  {
    const std::lock_guard lock(mutex_);
    stopping_ = true;
  }
  announced_.notify_one();
}

void dispatcher::stop() noexcept {
  const std::lock_guard until_it_has_ended(stopping_mutex_);
  let_end();
  thread_.join();
}

bool dispatcher::is_on_own_thread() const noexcept { return this_dispatcher == this; }

void dispatcher::announce(announced& ready, urgency how) noexcept {
  bool sleeps = false;
  {
    const std::lock_guard lock(mutex_);
    sleeps = first_ == nullptr;
    if (how == urgency::now && !std::exchange(is_urgent_, true)) sleeps = true;
    if (!std::exchange(ready.is_announced_, true)) ready.next_ = std::exchange(first_, &ready);
  }
  if (sleeps) announced_.notify_one();
}

// Null: stop. Otherwise those announced, linked.
announced* dispatcher::wait_for_announcements() noexcept {
  std::unique_lock lock(mutex_);
  announced_.wait(lock, [this] { return first_ != nullptr || stopping_; });
  announced_.wait_for(lock, linger, [this] { return is_urgent_ || stopping_; });
  is_urgent_ = false;
  return std::exchange(first_, nullptr);
}

// From here on it may be announced, and linked, again.
void dispatcher::forget(announced& taken) noexcept {
  const std::lock_guard lock(mutex_);
  taken.is_announced_ = false;
}

void dispatcher::run(const std::string& name) noexcept {
  this_dispatcher = this;
  // The outer pair pins the thread's Python state for its whole life; the inner acquire only takes the GIL.
  const py::gil_scoped_acquire pinned;
  const thread_identity identity(name);
  const py::gil_scoped_release idle;
  while (announced* ready = wait_for_announcements()) {
    const py::gil_scoped_acquire gil;
    acquisitions_.fetch_add(1, std::memory_order_relaxed);
    while (ready != nullptr) {
      announced& each = *std::exchange(ready, ready->next_);
      forget(each);
      each.on_dispatch();
    }
  }
}

}  // namespace offgil::python
