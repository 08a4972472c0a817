// mailbox.cpp - where workers leave the finished jobs of one event loop.
#include "mailbox.hpp"

#include "loop_channel.hpp"

namespace offgil::python {

void mailbox::wake() noexcept {
  if (is_watched())
    descriptor_->wake();
  else
    dispatcher_->announce(*this);
}

void mailbox::on_dispatch() noexcept {
  if (owner != nullptr) owner->drain_soon_threadsafe();
}

announced::answer mailbox::look_for_answer() noexcept {
  if (is_asleep()) return answer::complete;
  const std::uint64_t answers = answers_.load(std::memory_order_relaxed);
  return std::exchange(answers_seen_, answers) == answers ? answer::none : answer::partial;
}

}  // namespace offgil::python
