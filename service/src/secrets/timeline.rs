//! Values that take turns.

use approov_verify::time::UnixTime;

/// A value and when it is in use.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Timed<T> {
    /// The value.
    pub value: T,
    /// From when on new things are made with it; `None`: from the beginning. Old things are opened with it before, too.
    pub from: Option<UnixTime>,
    /// When it is no longer used for anything; `None`: never.
    pub until: Option<UnixTime>,
}

impl<T> Timed<T> {
    fn has_begun(&self, now: UnixTime) -> bool {
        self.from.is_none_or(|from| from <= now)
    }

    fn has_ended(&self, now: UnixTime) -> bool {
        self.until.is_some_and(|until| until <= now)
    }

    /// Whether this one, rather than `other`, makes new things. A later time wins among those that have begun, and of two
    /// that have not, the one that is nearer.
    fn goes_before(&self, other: &Self, now: UnixTime) -> bool {
        match (self.has_begun(now), other.has_begun(now)) {
            (true, true) => self.from >= other.from,
            (false, false) => self.from < other.from,
            (begun, _) => begun,
        }
    }
}

/// At least one value that never ends, so that there is one at any time; and others.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Timeline<T> {
    lasting: Timed<T>,
    others: Vec<Timed<T>>,
}

impl<T> From<T> for Timeline<T> {
    /// One value for all times.
    fn from(value: T) -> Self {
        Self { lasting: Timed { value, from: None, until: None }, others: Vec::new() }
    }
}

impl<T> Timeline<T> {
    /// The values of a list; `None` when each of them ends.
    pub fn new(mut entries: Vec<Timed<T>>) -> Option<Self> {
        let lasting = entries.iter().position(|entry| entry.until.is_none())?;
        Some(Self { lasting: entries.remove(lasting), others: entries })
    }

    /// The value, if it is one for all times.
    pub fn into_only(self) -> Option<T> {
        let alone = self.others.is_empty() && self.lasting.from.is_none();
        alone.then_some(self.lasting.value)
    }

    /// All of them.
    pub fn entries(&self) -> impl Iterator<Item = &Timed<T>> {
        std::iter::once(&self.lasting).chain(&self.others)
    }

    /// What new things are made with: the newest value whose time has come.
    pub fn making(&self, now: UnixTime) -> &T {
        let others = self.others.iter().filter(|entry| !entry.has_ended(now));
        let newest = others.fold(&self.lasting, |best, entry| if entry.goes_before(best, now) { entry } else { best });
        &newest.value
    }

    /// What things are opened with: every value that has not ended, also those whose time has not come.
    pub fn opening(&self, now: UnixTime) -> impl Iterator<Item = &T> {
        self.entries().filter(move |entry| !entry.has_ended(now)).map(|entry| &entry.value)
    }

    /// The value that is to come next, if one is.
    pub fn staged(&self, now: UnixTime) -> Option<&T> {
        let waiting = self.entries().filter(|entry| !entry.has_begun(now) && !entry.has_ended(now));
        waiting.min_by_key(|entry| entry.from).map(|entry| &entry.value)
    }

    /// What is made of each value, at the same times.
    ///
    /// # Errors
    /// The first that cannot be made.
    pub fn try_map<U, E>(&self, make: impl Fn(&T) -> Result<U, E>) -> Result<Timeline<U>, E> {
        let map =
            |entry: &Timed<T>| make(&entry.value).map(|value| Timed { value, from: entry.from, until: entry.until });
        Ok(Timeline { lasting: map(&self.lasting)?, others: self.others.iter().map(map).collect::<Result<_, E>>()? })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(seconds: i64) -> UnixTime {
        UnixTime::from_secs(seconds)
    }

    fn entry(value: char, from: Option<i64>, until: Option<i64>) -> Timed<char> {
        Timed { value, from: from.map(at), until: until.map(at) }
    }

    #[test]
    fn a_rotation_is_staged_then_active_then_retired() {
        let secrets = Timeline::new(vec![entry('a', None, Some(200)), entry('b', Some(100), None)]).unwrap();
        for (now, making, opening, staged) in [
            (0, 'a', "ba", Some('b')),
            (99, 'a', "ba", Some('b')),
            (100, 'b', "ba", None),
            (199, 'b', "ba", None),
            (200, 'b', "b", None),
        ] {
            assert_eq!(*secrets.making(at(now)), making, "{now}");
            assert_eq!(secrets.opening(at(now)).collect::<String>(), opening, "{now}");
            assert_eq!(secrets.staged(at(now)).copied(), staged, "{now}");
        }
    }

    #[test]
    fn the_newest_whose_time_has_come_makes_and_some_value_always_does() {
        let all = [entry('a', None, None), entry('c', Some(20), None), entry('b', Some(10), Some(30))];
        for order in [[0, 1, 2], [2, 1, 0], [1, 0, 2]] {
            let secrets = Timeline::new(order.iter().map(|index| all[*index]).collect()).unwrap();
            let made: String = [0, 10, 19, 20, 40].map(|now| *secrets.making(at(now))).iter().collect();
            assert_eq!(made, "abbcc");
        }
        let early = Timeline::new(vec![entry('x', Some(20), None), entry('y', Some(10), Some(15))]).unwrap();
        let made: String = [0, 12, 16, 30].map(|now| *early.making(at(now))).iter().collect();
        assert_eq!(made, "yyxx");
        assert!(Timeline::new(vec![entry('a', None, Some(1))]).is_none(), "a list in which everything ends");
    }
}
