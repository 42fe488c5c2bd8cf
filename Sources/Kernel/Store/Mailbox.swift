import Glibc
import Synchronization

/// A link of a `Mailbox`. Subclassed by requests.
///
/// `@unchecked Sendable`: `next` belongs to the sender until the push, and to the one receiver after it.
class Letter: @unchecked Sendable {
    fileprivate var next: UnsafeMutableRawPointer?
}

/// Letters from many threads to one. Senders never wait, not even for the receiver (a stack whose head is swapped): a
/// loop thread must not stand behind a lock that the writer holds.
struct Mailbox: ~Copyable {
    private let head = Atomic<UnsafeMutableRawPointer?>(nil)

    var isEmpty: Bool { head.load(ordering: .sequentiallyConsistent) == nil }

    func push(_ letter: Letter) {
        let address = Unmanaged.passRetained(letter).toOpaque()
        var seen = head.load(ordering: .relaxed)
        while true {
            letter.next = seen
            let (exchanged, original) = head.weakCompareExchange(
                expected: seen, desired: address, ordering: .sequentiallyConsistent)
            if exchanged { return }
            seen = original
        }
    }

    /// Everything that has arrived, oldest first, appended to `letters`. Only the receiver calls it.
    func takeAll<Element: Letter>(into letters: inout [Element], as _: Element.Type = Element.self) {
        var address = head.exchange(nil, ordering: .sequentiallyConsistent)
        let start = letters.count
        while let current = address {
            let letter = Unmanaged<Letter>.fromOpaque(current).takeRetainedValue()
            address = letter.next
            letter.next = nil
            letters.append(unsafeDowncast(letter, to: Element.self))
        }
        letters[start...].reverse()
    }
}

/// A counting semaphore that a sender touches only when the receiver sleeps.
///
/// `@unchecked Sendable`: POSIX semaphores are made for use across threads; the memory lives as long as this object.
final class Doorbell: @unchecked Sendable {
    private let semaphore = UnsafeMutablePointer<sem_t>.allocate(capacity: 1)
    private let asleep = Atomic<Bool>(false)

    init() { sem_init(semaphore, 0, 0) }

    deinit {
        sem_destroy(semaphore)
        semaphore.deallocate()
    }

    /// After the work was made visible.
    func ring() {
        if asleep.exchange(false, ordering: .sequentiallyConsistent) { sem_post(semaphore) }
    }

    /// Sleeps until the next `ring`, unless `hasWork` says otherwise after sleep was announced.
    func wait(unless hasWork: () -> Bool) {
        asleep.store(true, ordering: .sequentiallyConsistent)
        if hasWork() {
            // Nobody may have rung; if somebody did, the post is on its way and must be taken.
            if asleep.exchange(false, ordering: .sequentiallyConsistent) { return }
        }
        while sem_wait(semaphore) != 0 {}
    }
}
