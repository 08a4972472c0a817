// mailbox.cpp - where workers leave the finished jobs of one event loop.
#include "mailbox.hpp"

#include "dispatcher.hpp"

namespace offgil::python {

void mailbox::wake() noexcept {
  if (is_watched())
    descriptor_->wake();
  else
    dispatcher_->announce(*this);
}

}  // namespace offgil::python
