// killed_thread.cpp - a thread that Python kills while C++ frames are on its stack.
//
// Up to 3.13 a thread that asks for the GIL while Python finalizes, such as a daemon thread that runs an
// event loop, is ended by pthread_exit(). glibc then unwinds its stack: destructors would give references
// back without the GIL, and a frame that is noexcept would end the process. From 3.14 on Python lets such a
// thread hang instead, since nothing else is safe; this does the same for the older ones. It stands in front
// of the routine by which C++ frames are unwound (the linker is told to wrap it) because that is called
// before any of them is.
#include <unistd.h>
#include <unwind.h>

#include "thread_state.hpp"

extern "C" {

using unwind_personality = _Unwind_Reason_Code(int, _Unwind_Action, _Unwind_Exception_Class,
                                               _Unwind_Exception*, _Unwind_Context*);
// The names are the linker's: what is wrapped, and what it was.
unwind_personality __real___gxx_personality_v0;  // NOLINT(bugprone-reserved-identifier)
unwind_personality __wrap___gxx_personality_v0;  // NOLINT(bugprone-reserved-identifier)

_Unwind_Reason_Code __wrap___gxx_personality_v0(int version, _Unwind_Action actions,
                                                _Unwind_Exception_Class exception_class,
                                                _Unwind_Exception* exception, _Unwind_Context* context) {
  while ((actions & _UA_FORCE_UNWIND) != 0 && offgil::python::is_finalizing()) pause();
  return __real___gxx_personality_v0(version, actions, exception_class, exception, context);
}

}  // extern "C"
