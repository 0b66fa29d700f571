//! Where a vehicle is and how it moves: along a route at a speed that changes, or about a town. Pure.

use std::time::Duration;

/// Metres in a degree of latitude.
const METRES_PER_DEGREE: f64 = 111_320.0;

/// A place, in degrees.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) struct Place {
    pub(super) latitude: f64,
    pub(super) longitude: f64,
}

impl Place {
    /// Metres to the north and to the east of another place nearby.
    fn from(self, other: Self) -> (f64, f64) {
        let north = (self.latitude - other.latitude) * METRES_PER_DEGREE;
        let east = (self.longitude - other.longitude) * METRES_PER_DEGREE * other.latitude.to_radians().cos();
        (north, east)
    }

    fn moved(self, metres: f64, heading: f64) -> Self {
        let (east, north) = heading.to_radians().sin_cos();
        let narrow = METRES_PER_DEGREE * self.latitude.to_radians().cos().max(0.01);
        Self {
            latitude: self.latitude + metres * north / METRES_PER_DEGREE,
            longitude: self.longitude + metres * east / narrow,
        }
    }
}

/// How vehicles of a group drive.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Roads {
    /// Driven from one to the next and back to the first; a single one is a town to drive about.
    pub(super) route: Vec<Place>,
    /// Kilometres an hour, the slowest and the fastest.
    pub(super) kmh: (f64, f64),
}

/// One vehicle on its way.
#[derive(Clone, Debug)]
pub(super) struct Drive {
    roads: Roads,
    pub(super) place: Place,
    /// Degrees, 0 is north.
    pub(super) heading: f64,
    pub(super) kmh: f64,
    /// The place of the route that it drives to.
    next: usize,
}

impl Drive {
    /// Begins somewhere on the way.
    pub(super) fn new(roads: Roads, random: &mut fastrand::Rng) -> Self {
        let first = random.usize(..roads.route.len().max(1));
        let place = roads.route.get(first).copied().unwrap_or(Place { latitude: 0.0, longitude: 0.0 });
        let kmh = roads.kmh.0 + (roads.kmh.1 - roads.kmh.0) * random.f64();
        let mut drive = Self { place, heading: random.f64() * 360.0, kmh, next: first, roads };
        drive.turn();
        // Not all at the same crossing.
        let ahead = random.f64() * 60.0;
        drive.pass(Duration::from_secs_f64(ahead), random);
        drive
    }

    /// Time passes.
    pub(super) fn pass(&mut self, time: Duration, random: &mut fastrand::Rng) {
        let (slowest, fastest) = self.roads.kmh;
        let change = (fastest - slowest) * 0.1;
        self.kmh = (self.kmh + change * (random.f64() * 2.0 - 1.0)).clamp(slowest, fastest);
        let mut metres = self.kmh / 3.6 * time.as_secs_f64();
        if self.roads.route.len() < 2 {
            self.heading = (self.heading + random.f64() * 30.0 - 15.0).rem_euclid(360.0);
            self.place = self.place.moved(metres, self.heading);
            return;
        }
        // A route may be shorter than a step; a round of it is enough to find the place on it.
        for _ in 0..=self.roads.route.len() {
            let Some(&goal) = self.roads.route.get(self.next) else { return };
            let (north, east) = goal.from(self.place);
            let left = north.hypot(east);
            self.heading = east.atan2(north).to_degrees().rem_euclid(360.0);
            if metres < left {
                self.place = self.place.moved(metres, self.heading);
                return;
            }
            metres -= left;
            self.place = goal;
            self.turn();
        }
    }

    fn turn(&mut self) {
        self.next = (self.next + 1) % self.roads.route.len().max(1);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn place(latitude: f64, longitude: f64) -> Place {
        Place { latitude, longitude }
    }

    #[test]
    fn a_vehicle_moves_as_fast_as_it_says() {
        for route in [vec![place(48.1, 11.5)], vec![place(48.1, 11.5), place(48.9, 12.5), place(48.2, 12.0)]]
        {
            let roads = Roads { route, kmh: (20.0, 120.0) };
            let mut random = fastrand::Rng::with_seed(3);
            let mut drive = Drive::new(roads.clone(), &mut random);
            for _ in 0..1_000 {
                let before = drive.clone();
                drive.pass(Duration::from_secs(2), &mut random);
                assert!((20.0..=120.0).contains(&drive.kmh));
                let (north, east) = drive.place.from(before.place);
                let kmh = north.hypot(east) / 2.0 * 3.6;
                // At a crossing the way is not straight.
                if drive.next == before.next {
                    assert!((kmh - drive.kmh).abs() < 1.0, "{kmh} {drive:?}");
                } else {
                    assert!(kmh <= drive.kmh + 1.0, "{kmh} {drive:?}");
                }
            }
        }
    }

    #[test]
    fn a_route_is_driven_from_place_to_place_and_round_again() {
        let route = vec![place(48.0, 11.0), place(48.01, 11.0), place(48.01, 11.01)];
        let mut random = fastrand::Rng::with_seed(5);
        let mut drive = Drive::new(Roads { route: route.clone(), kmh: (100.0, 100.0) }, &mut random);
        let mut goals = Vec::new();
        for _ in 0..600 {
            drive.pass(Duration::from_secs(1), &mut random);
            if goals.last() != Some(&drive.next) {
                goals.push(drive.next);
            }
            let nearest = route
                .iter()
                .map(|stop| {
                    let (n, e) = drive.place.from(*stop);
                    n.hypot(e)
                })
                .fold(f64::MAX, f64::min);
            assert!(nearest < 1_200.0, "it left the route: {drive:?}");
        }
        assert!(goals.len() > 6 && goals.windows(2).all(|pair| pair[1] == (pair[0] + 1) % 3), "{goals:?}");
    }
}
