// mailbox.cpp - where workers leave the finished jobs of one event loop.
#include "mailbox.hpp"

#include "loop_channel.hpp"

namespace offgil::python {

void mailbox::wake() noexcept {
  if (is_watched()) descriptor_->wake();
  if (dispatcher* const by = announcer_.load(std::memory_order_acquire)) by->announce(*this);
}

void mailbox::announce_by(std::shared_ptr<dispatcher> by) noexcept {
  dispatcher_ = std::move(by);
  announcer_.store(dispatcher_.get(), std::memory_order_release);
}

void mailbox::let_only_watch() noexcept {
  if (is_watched()) announcer_.store(nullptr, std::memory_order_relaxed);
}

void mailbox::on_dispatch() noexcept {
  if (owner != nullptr) owner->on_announced();
}

announced::answer mailbox::look_for_answer() noexcept {
  if (is_asleep()) return answer::complete;
  const std::uint64_t answers = answers_.load(std::memory_order_relaxed);
  return std::exchange(answers_seen_, answers) == answers ? answer::none : answer::partial;
}

}  // namespace offgil::python
