// dispatcher.cpp - a thread that brings completions to event loops which cannot watch a descriptor.
#include "dispatcher.hpp"

#include <pybind11/pybind11.h>

#include <utility>

#include "loop_channel.hpp"
#include "mailbox.hpp"

namespace offgil::python {

namespace py = pybind11;

dispatcher::dispatcher(const std::string& name, std::atomic<std::uint64_t>& acquisitions)
    : acquisitions_(acquisitions), thread_(name + "-gil", 0, [this] { run(); }) {}

void dispatcher::stop() noexcept {
  const std::lock_guard until_it_has_ended(stopping_mutex_);
  {
    const std::lock_guard lock(mutex_);
    stopping_ = true;
  }
  announced_.notify_one();
  thread_.join();
}

void dispatcher::announce(mailbox& ready) noexcept {
  {
    const std::lock_guard lock(mutex_);
    if (std::exchange(ready.is_announced, true)) return;
    ready.next_announced = std::exchange(first_, &ready);
  }
  announced_.notify_one();
}

// Null: stop. Otherwise the announced mailboxes, linked.
mailbox* dispatcher::wait_for_announcements() noexcept {
  std::unique_lock lock(mutex_);
  announced_.wait(lock, [this] { return first_ != nullptr || stopping_; });
  return std::exchange(first_, nullptr);
}

// From here on the mailbox may be announced, and linked, again.
void dispatcher::forget(mailbox& taken) noexcept {
  const std::lock_guard lock(mutex_);
  taken.is_announced = false;
}

void dispatcher::run() noexcept {
  // The outer pair pins the thread's Python state for its whole life; the inner acquire only takes the GIL.
  const py::gil_scoped_acquire pinned;
  const py::gil_scoped_release idle;
  while (mailbox* ready = wait_for_announcements()) {
    const py::gil_scoped_acquire gil;
    acquisitions_.fetch_add(1, std::memory_order_relaxed);
    while (ready != nullptr) {
      mailbox& each = *std::exchange(ready, ready->next_announced);
      forget(each);
      if (each.owner != nullptr) each.owner->drain_soon_threadsafe();
    }
  }
}

}  // namespace offgil::python
