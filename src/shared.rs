//! A future that several wait for together.
//!
//! `futures_util::future::Shared` does the same for futures that move between threads, which adds 6 kB to a page.

use std::cell::{Cell, OnceCell, RefCell};
use std::future::Future;
use std::pin::Pin;
use std::rc::{Rc, Weak};
use std::task::{Context, Poll, Waker};

/// A boxed future that stays on its thread.
pub type LocalBoxFuture<T> = Pin<Box<dyn Future<Output = T>>>;

/// One waiter of a shared future. The future makes progress as long as one of them waits, and is dropped with the last.
pub struct Shared<T> {
    work: Rc<Work>,
    outcome: Rc<OnceCell<T>>,
    slot: Cell<Option<usize>>,
}

/// A handle to join a shared future that does not keep it alive.
pub struct WeakShared<T> {
    work: Weak<Work>,
    outcome: Weak<OnceCell<T>>,
}

impl<T: 'static> Shared<T> {
    /// Shares a future.
    pub fn new(future: impl Future<Output = T> + 'static) -> Self {
        let outcome = Rc::new(OnceCell::new());
        let filled = Rc::clone(&outcome);
        let future = Box::pin(async move {
            // Cannot fail: nothing else sets it, and this future ends once.
            let _ = filled.set(future.await);
        });
        Shared { work: Rc::new(Work::new(future)), outcome, slot: Cell::new(None) }
    }
}

impl<T> Shared<T> {
    /// A handle that does not keep the future alive.
    #[must_use]
    pub fn downgrade(&self) -> WeakShared<T> {
        WeakShared { work: Rc::downgrade(&self.work), outcome: Rc::downgrade(&self.outcome) }
    }

    /// The output of the future, if it has ended.
    #[must_use]
    pub fn peek(&self) -> Option<&T> {
        self.outcome.get()
    }
}

impl<T> WeakShared<T> {
    /// Joins the future; `None` if nobody waits for it any more.
    #[must_use]
    pub fn upgrade(&self) -> Option<Shared<T>> {
        Some(Shared { work: self.work.upgrade()?, outcome: self.outcome.upgrade()?, slot: Cell::new(None) })
    }
}

impl<T> Clone for Shared<T> {
    /// Another waiter.
    fn clone(&self) -> Self {
        Shared { work: Rc::clone(&self.work), outcome: Rc::clone(&self.outcome), slot: Cell::new(None) }
    }
}

impl<T: Clone> Future for Shared<T> {
    type Output = T;

    fn poll(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<T> {
        if self.outcome.get().is_none() {
            self.work.advance(&self.slot, context);
        }
        self.outcome.get().cloned().map_or(Poll::Pending, Poll::Ready)
    }
}

impl<T> Drop for Shared<T> {
    fn drop(&mut self) {
        if let Some(slot) = self.slot.get() {
            self.work.leave(slot);
        }
    }
}

/// The future, and the wakers of its waiters, one slot each. The future wakes the waiter that polled it last.
struct Work {
    future: Cell<Option<LocalBoxFuture<()>>>,
    waiting: RefCell<Vec<Option<Waker>>>,
    latest: Cell<usize>,
}

impl Work {
    fn new(future: LocalBoxFuture<()>) -> Self {
        Work { future: Cell::new(Some(future)), waiting: RefCell::default(), latest: Cell::new(0) }
    }

    fn advance(&self, slot: &Cell<Option<usize>>, context: &mut Context<'_>) {
        self.register(slot, context.waker());
        // It is not there while it is being polled further up the stack, and once it has ended.
        let Some(mut future) = self.future.take() else { return };
        if future.as_mut().poll(context).is_pending() {
            self.future.set(Some(future));
            return;
        }
        drop(future);
        for waker in self.waiting.take().into_iter().flatten() {
            waker.wake();
        }
    }

    fn register(&self, slot: &Cell<Option<usize>>, waker: &Waker) {
        let mut waiting = self.waiting.borrow_mut();
        let number = slot.get().unwrap_or(waiting.len());
        match waiting.get_mut(number) {
            Some(known) => *known = Some(waker.clone()),
            None => waiting.push(Some(waker.clone())),
        }
        slot.set(Some(number));
        self.latest.set(number);
    }

    /// Empties a slot; if the future would have woken its waiter, another waiter is woken and takes over.
    fn leave(&self, slot: usize) {
        let mut waiting = self.waiting.borrow_mut();
        if let Some(left) = waiting.get_mut(slot) {
            *left = None;
        }
        if self.latest.get() == slot
            && let Some((heir, waker)) =
                waiting.iter().enumerate().find_map(|(heir, waker)| Some((heir, waker.clone()?)))
        {
            self.latest.set(heir);
            drop(waiting);
            waker.wake();
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;
    use std::sync::atomic::{AtomicUsize, Ordering};
    use std::task::Wake;

    use super::*;

    /// Counts how often it is woken.
    #[derive(Default)]
    struct Alarm(AtomicUsize);

    impl Wake for Alarm {
        fn wake(self: Arc<Self>) {
            self.0.fetch_add(1, Ordering::SeqCst);
        }
    }

    /// A waiter with an alarm of its own.
    struct Waiter(Shared<u32>, Arc<Alarm>);

    impl Waiter {
        fn new(shared: Shared<u32>) -> Self {
            Waiter(shared, Arc::default())
        }

        fn poll(&mut self) -> Poll<u32> {
            Pin::new(&mut self.0).poll(&mut Context::from_waker(&Waker::from(Arc::clone(&self.1))))
        }

        fn alarms(&self) -> usize {
            self.1.0.load(Ordering::SeqCst)
        }
    }

    /// A future that ends when the switch is thrown, and wakes the one who polled it last.
    #[derive(Clone, Default)]
    struct Switch(Rc<(Cell<bool>, RefCell<Option<Waker>>)>);

    impl Switch {
        fn throw(&self) {
            self.0.0.set(true);
            if let Some(waker) = self.0.1.take() {
                waker.wake();
            }
        }

        fn shared(&self) -> Shared<u32> {
            let this = self.clone();
            Shared::new(async move {
                std::future::poll_fn(|context| {
                    *this.0.1.borrow_mut() = Some(context.waker().clone());
                    if this.0.0.get() { Poll::Ready(()) } else { Poll::Pending }
                })
                .await;
                7
            })
        }
    }

    #[test]
    fn every_waiter_gets_the_outcome_and_is_woken_for_it() {
        let switch = Switch::default();
        let mut first = Waiter::new(switch.shared());
        let mut second = Waiter::new(first.0.clone());
        assert!(first.poll().is_pending() && second.poll().is_pending());
        assert_eq!(first.0.peek(), None);
        switch.throw();
        assert_eq!((first.alarms(), second.alarms()), (0, 1), "the one who polled last");
        assert_eq!(second.poll(), Poll::Ready(7));
        assert_eq!(first.alarms(), 1);
        assert_eq!(first.poll(), Poll::Ready(7));
        assert_eq!(Waiter::new(first.0.clone()).poll(), Poll::Ready(7), "also who comes late");
        assert_eq!(first.0.peek(), Some(&7));
    }

    #[test]
    fn when_the_one_who_would_be_woken_leaves_another_takes_over() {
        let switch = Switch::default();
        let mut waiters: Vec<_> = std::iter::repeat_n(switch.shared(), 3).map(Waiter::new).collect();
        for waiter in &mut waiters {
            assert!(waiter.poll().is_pending());
        }
        drop(waiters.pop());
        // The heir leaves as well, before it got around to polling.
        assert_eq!(waiters[0].alarms(), 1);
        drop(waiters.remove(0));
        let mut last = waiters.remove(0);
        assert_eq!(last.alarms(), 1);
        assert!(last.poll().is_pending());
        switch.throw();
        assert_eq!(last.alarms(), 2);
        assert_eq!(last.poll(), Poll::Ready(7));
    }

    #[test]
    fn a_waiter_that_is_polled_again_keeps_its_slot() {
        let switch = Switch::default();
        let mut waiter = Waiter::new(switch.shared());
        for _ in 0..10 {
            assert!(waiter.poll().is_pending());
        }
        assert_eq!(waiter.0.work.waiting.borrow().len(), 1);
    }

    #[test]
    fn it_is_dropped_with_the_last_waiter() {
        let switch = Switch::default();
        let mut waiter = Waiter::new(switch.shared());
        let weak = waiter.0.downgrade();
        assert!(waiter.poll().is_pending());
        assert!(weak.upgrade().is_some());
        drop(waiter);
        assert!(weak.upgrade().is_none());
        assert_eq!(Rc::strong_count(&switch.0), 1, "the future is gone");
    }
}
