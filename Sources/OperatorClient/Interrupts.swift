/// Ctrl-C as an event. Lives on the program's loop.
public final class Interrupts {
    /// What the running verb does about it; `nil` means that the program ends at once.
    var handler: (() -> Void)?

    public init() {}

    /// False when nobody handles it.
    public func raise() -> Bool {
        guard let handler else { return false }
        handler()
        return true
    }
}
