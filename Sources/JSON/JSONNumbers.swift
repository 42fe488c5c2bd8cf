extension JSONReader {
    /// A whole number; `3.0` and `3e2` count as whole.
    public mutating func integer() throws(JSONError) -> Int64 {
        guard next == .number else { throw expected("a whole number") }
        let start = position
        guard let value = try number().integer else {
            throw error(.numberRange, "\(text(from: start)) is not a whole number", at: start)
        }
        return value
    }

    /// A whole number within bounds.
    public mutating func integer(in range: ClosedRange<Int>) throws(JSONError) -> Int {
        let start = position
        let value = Int(try integer())
        guard range.contains(value) else {
            throw error(
                .numberRange, "\(value) is out of range: allowed are \(range.lowerBound) to \(range.upperBound)", at: start)
        }
        return value
    }

    public mutating func double() throws(JSONError) -> Double {
        guard next == .number, let value = try number().number else { throw expected("a number") }
        return value
    }

    /// RFC 8259 §6.
    mutating func number() throws(JSONError) -> JSONValue {
        let start = position
        let isNegative = take(UInt8(ascii: "-"))
        // Collected as a negative number, because Int64.min has no positive counterpart.
        var magnitude: Int64 = 0
        var overflows = false
        let firstDigit = position
        while let digit = takeDigit() {
            let (product, productOverflows) = magnitude.multipliedReportingOverflow(by: 10)
            let (sum, sumOverflows) = product.subtractingReportingOverflow(Int64(digit))
            overflows = overflows || productOverflows || sumOverflows
            magnitude = sum
        }
        guard position > firstDigit else { throw expected("a digit") }
        if base[firstDigit] == UInt8(ascii: "0"), position > firstDigit + 1 {
            throw error(.syntax, "a number must not begin with 0", at: firstDigit)
        }
        if try !scanFractionAndExponent() {
            guard !overflows, isNegative || magnitude != .min else {
                throw error(
                    .numberRange, "\(text(from: start)) does not fit: allowed are \(Int64.min) to \(Int64.max)", at: start)
            }
            return .integer(isNegative ? magnitude : -magnitude)
        }
        guard let value = Double(text(from: start)), value.isFinite else {
            throw error(.numberRange, "\(text(from: start)) is too large for a number", at: start)
        }
        return .number(value)
    }

    /// True when there was a fraction or an exponent.
    private mutating func scanFractionAndExponent() throws(JSONError) -> Bool {
        var found = false
        if take(UInt8(ascii: ".")) {
            found = true
            guard takeDigit() != nil else { throw expected("a digit after '.'") }
            while takeDigit() != nil {}
        }
        if take(UInt8(ascii: "e")) || take(UInt8(ascii: "E")) {
            found = true
            if !take(UInt8(ascii: "+")) { _ = take(UInt8(ascii: "-")) }
            guard takeDigit() != nil else { throw expected("a digit of the exponent") }
            while takeDigit() != nil {}
        }
        return found
    }

    private mutating func takeDigit() -> UInt8? {
        guard position < end else { return nil }
        let digit = base[position] &- UInt8(ascii: "0")
        guard digit < 10 else { return nil }
        position += 1
        return digit
    }

    private func text(from start: Int) -> String {
        String(decoding: UnsafeBufferPointer(start: base + start, count: position - start), as: UTF8.self)
    }
}
