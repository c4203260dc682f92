//! A few values by name, in the order they came: small in code, and quick for as many as there ever are here.

/// Values by name.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Named<T>(Vec<(String, T)>);

impl<T> Named<T> {
    /// The value of a name.
    #[must_use]
    pub fn get(&self, name: &str) -> Option<&T> {
        self.0.iter().find(|(known, _)| known == name).map(|(_, value)| value)
    }

    /// Sets the value of a name, in place of the one it had.
    pub fn insert(&mut self, name: String, value: T) {
        match self.0.iter_mut().find(|(known, _)| *known == name) {
            Some((_, known)) => *known = value,
            None => self.0.push((name, value)),
        }
    }

    /// Takes the value of a name, and leaves the default in its place.
    pub fn take(&mut self, name: &str) -> Option<T>
    where
        T: Default,
    {
        self.0.iter_mut().find(|(known, _)| known == name).map(|(_, value)| std::mem::take(value))
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

    /// The same names with other values, unless one cannot be made.
    ///
    /// # Errors
    /// The first that `convert` gives.
    pub fn try_map<U, E>(self, mut convert: impl FnMut(&str, T) -> Result<U, E>) -> Result<Named<U>, E> {
        let mut converted = Vec::with_capacity(self.0.len());
        for (name, value) in self.0 {
            let value = convert(&name, value)?;
            converted.push((name, value));
        }
        Ok(Named(converted))
    }
}

impl<T> Default for Named<T> {
    fn default() -> Self {
        Named(Vec::new())
    }
}
