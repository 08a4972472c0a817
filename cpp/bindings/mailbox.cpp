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

}  // namespace offgil::python
