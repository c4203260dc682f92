//! A map for a few entries: a list searched from the front, small in code, and quick for as many as there ever are here.

/// Values by name, in the order of insertion.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SmallMap<T>(Vec<(String, T)>);

impl<T> SmallMap<T> {
    /// The value of a name.
    #[must_use]
    pub fn get(&self, name: &str) -> Option<&T> {
        self.0.iter().find(|(known, _)| known == name).map(|(_, value)| value)
    }

    /// Sets the value of a name, replacing the one it had.
    pub fn insert(&mut self, name: String, value: T) {
        match self.0.iter_mut().find(|(known, _)| *known == name) {
            Some((_, known)) => *known = value,
            None => self.0.push((name, value)),
        }
    }

    /// Takes the value of a name, leaving the default behind.
    pub fn take(&mut self, name: &str) -> Option<T>
    where
        T: Default,
    {
        self.0.iter_mut().find(|(known, _)| known == name).map(|(_, value)| std::mem::take(value))
    }

    /// Removes a value.
    pub fn remove(&mut self, name: &str) -> Option<T> {
        let position = self.0.iter().position(|(known, _)| known == name)?;
        Some(self.0.remove(position).1)
    }

    /// Keeps the values that a predicate holds for.
    pub fn retain(&mut self, mut holds: impl FnMut(&T) -> bool) {
        self.0.retain(|(_, value)| holds(value));
    }

    /// Drops all.
    pub fn clear(&mut self) {
        self.0.clear();
    }

    /// How many there are.
    #[must_use]
    pub fn len(&self) -> usize {
        self.0.len()
    }

    /// Whether there is none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Names and values.
    pub fn iter(&self) -> impl Iterator<Item = (&str, &T)> {
        self.0.iter().map(|(name, value)| (name.as_str(), value))
    }

    /// The same names with converted values, or the first error of a conversion.
    ///
    /// # Errors
    /// The first that `convert` gives.
    pub fn try_map<U, E>(self, mut convert: impl FnMut(&str, T) -> Result<U, E>) -> Result<SmallMap<U>, E> {
        let mut converted = Vec::with_capacity(self.0.len());
        for (name, value) in self.0 {
            let value = convert(&name, value)?;
            converted.push((name, value));
        }
        Ok(SmallMap(converted))
    }
}

impl<T> Default for SmallMap<T> {
    fn default() -> Self {
        SmallMap(Vec::new())
    }
}
