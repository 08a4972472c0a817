// lanes.hpp - a lane with a gate of its own.
#pragma once

#include "job.hpp"

namespace offgil::testing {

class private_lane : public lane {
 public:
  private_lane() : lane(own_) {}

 private:
  lane_gate own_;
};

}  // namespace offgil::testing
