//! The streams of a connection, by their number and by their place.

use std::{sync::Arc, task::Waker};

use super::{ready::Ready, stream::Stream};

/// Those that are open, and those that are not whole yet on either side.
#[derive(Debug, Default)]
pub(super) struct Streams {
    /// A place is taken again after it has been left.
    places: Vec<Option<Box<Stream>>>,
    free: Vec<usize>,
    /// Numbers and places, in the order of the numbers: they only grow.
    numbers: Vec<(u32, usize)>,
    wakers: Vec<Waker>,
}

// === impl Streams ===

impl Streams {
    pub(super) fn len(&self) -> usize {
        self.numbers.len()
    }

    pub(super) fn is_empty(&self) -> bool {
        self.numbers.is_empty()
    }

    /// The place of the stream with this number.
    pub(super) fn find(&self, number: u32) -> Option<usize> {
        let index = self.numbers.binary_search_by_key(&number, |(number, _)| *number).ok()?;
        Some(self.numbers[index].1)
    }

    pub(super) fn at(&mut self, place: usize) -> Option<&mut Stream> {
        self.places.get_mut(place)?.as_deref_mut()
    }

    /// A place for the next stream, whose number is larger than that of any before; `make` makes it.
    pub(super) fn insert(
        &mut self,
        number: u32,
        ready: &Arc<Ready>,
        make: impl FnOnce(Waker) -> Stream,
    ) -> usize {
        let place = self.free.pop().unwrap_or_else(|| {
            self.places.push(None);
            self.wakers.push(ready.waker(self.wakers.len()));
            self.places.len() - 1
        });
        self.places[place] = Some(Box::new(make(self.wakers[place].clone())));
        self.numbers.push((number, place));
        place
    }

    pub(super) fn remove(&mut self, place: usize) -> Option<Box<Stream>> {
        let stream = self.places.get_mut(place)?.take()?;
        if let Ok(index) = self.numbers.binary_search_by_key(&stream.number, |(number, _)| *number) {
            self.numbers.remove(index);
        }
        self.free.push(place);
        Some(stream)
    }

    /// The places of all.
    pub(super) fn places(&self) -> Vec<usize> {
        self.numbers.iter().map(|(_, place)| *place).collect()
    }

    pub(super) fn each(&mut self) -> impl Iterator<Item = (usize, &mut Stream)> {
        let places = self.places.iter_mut().enumerate();
        places.filter_map(|(place, stream)| Some((place, stream.as_deref_mut()?)))
    }

    /// Gives memory back, if there are none.
    pub(super) fn rest(&mut self) {
        if self.is_empty() {
            *self = Self::default();
        }
    }
}
