// thread_identity.hpp - what a thread of ours is to Python's threading module.
#pragma once

#include <string>

namespace offgil::python {

// While it lives, the calling thread has a name in threading.current_thread() and threading.enumerate(), and
// the hooks of threading.setprofile() and threading.settrace(), as a threading.Thread would have: those that
// are set when it begins. Needs the GIL, and the thread's Python state for as long as it lives.
class thread_identity {
 public:
  explicit thread_identity(const std::string& name) noexcept;
  ~thread_identity();
  thread_identity(const thread_identity&) = delete;
  thread_identity& operator=(const thread_identity&) = delete;
};

// Whether the calling thread has one: it runs jobs or callbacks for a pool, and nobody else is there to hear
// of what they raise.
bool is_thread_of_ours() noexcept;

}  // namespace offgil::python
