// wakeup_mechanisms.hpp - both means of a wakeup, for tests that hold of each.
#pragma once

#include <gtest/gtest.h>

#include <ostream>
#include <string>

#include "wakeup.hpp"

namespace offgil {

// Found by GoogleTest through the namespace of the type.
inline void PrintTo(wakeup::mechanism mechanism, std::ostream* out) {
  *out << (mechanism == wakeup::mechanism::pipe ? "pipe" : "eventfd");
}

namespace testing {

inline auto each_mechanism() {
  return ::testing::Values(wakeup::mechanism::eventfd, wakeup::mechanism::pipe);
}

}  // namespace testing
}  // namespace offgil
