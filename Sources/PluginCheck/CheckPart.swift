/// One check, run in a process of its own.
enum CheckPart: Equatable {
    /// The entry alone: quick, refuses other majors, its table equals the note.
    case entry
    /// load, start, requests and jobs, quiesce, resume, stop; what comes after stop.
    case life
    /// Switched off and on again: the image is never unmapped.
    case again
    /// A newer core: larger tables.
    case larger
    /// An older core: tables that end behind so many functions.
    case smaller(Int)
    /// The core's answer number N is a failure; with or without an error to fill.
    case fault(Int)
    case faultWithoutError(Int)

    init?(_ word: String) {
        let parts = word.split(separator: "-", maxSplits: 1).map(String.init)
        let number = parts.count > 1 ? Int(parts[1]) : nil
        switch (parts.first, number) {
        case ("entry", nil): self = .entry
        case ("life", nil): self = .life
        case ("again", nil): self = .again
        case ("larger", nil): self = .larger
        case ("smaller", let number?): self = .smaller(number)
        case ("fault", let number?): self = .fault(number)
        case ("null", let number?): self = .faultWithoutError(number)
        default: return nil
        }
    }

    var word: String {
        switch self {
        case .entry: "entry"
        case .life: "life"
        case .again: "again"
        case .larger: "larger"
        case .smaller(let count): "smaller-\(count)"
        case .fault(let number): "fault-\(number)"
        case .faultWithoutError(let number): "null-\(number)"
        }
    }

    /// For people.
    var title: String {
        switch self {
        case .entry: "entry: quick, refuses another major version, says what the note says"
        case .life: "life: load, start, requests and jobs, quiesce, resume, stop, and what comes after"
        case .again: "again: stopped and loaded a second time"
        case .larger: "newer core: larger tables"
        case .smaller(let count): "older core: tables of \(count) functions"
        case .fault(let number): "failure \(number) of the core"
        case .faultWithoutError(let number): "failure \(number) of the core, without an error to fill"
        }
    }
}
