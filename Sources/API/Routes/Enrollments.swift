import JSON
import Kernel
import Web

extension Right {
    public static let readEnrollments: Right = "enrollment.read"
    public static let decideEnrollments: Right = "enrollment.decide"
    public static let setEnrollmentPolicy: Right = "enrollment.policy"
}

/// `/api/v1/enrollments`: machines that wait for approval.
public func enrollmentRoutes(_ enrollment: Enrollment) -> [Route] {
    let policy = Schema.object([
        .required("auto_approve", .boolean("Let every machine in that proves a key. Off as shipped.")),
        .optional("labels", .map(.any(), "Asserted on each of them.", count: 0...64)),
    ])
    return [
        Route(
            .get, "/api/v1/enrollments", right: .readEnrollments, "Machines that wait for approval, oldest first.",
            answers: [Route.Answer(200, "Enrollments.", page(pendingSchema))]
        ) { (_) async throws(Problem) in
            .json(.page(enrollment.pending().map { json($0) }, next: nil))
        },
        Route(
            .get, "/api/v1/enrollments/policy", right: .readEnrollments, "Whether machines are approved by themselves.",
            answers: [Route.Answer(200, "The policy.", policy)]
        ) { (_) async throws(Problem) in .json(json(enrollment.policy)) },
        Route(
            .put, "/api/v1/enrollments/policy", right: .setEnrollmentPolicy, "Switches automatic approval.",
            body: .json(policy), answers: [Route.Answer(200, "The policy.", policy)]
        ) { (request) async throws(Problem) in
            var policy = EnrollmentPolicy()
            policy.autoApprove = request.json["auto_approve"]?.bool ?? false
            policy.labels = try Reading.labels(request.json["labels"], removing: false).compactMapValues { $0 }
            try await enrollment.setPolicy(policy, by: request.principal)
            return .json(json(policy))
        },
        Route(
            .get, "/api/v1/enrollments/{id}", right: .readEnrollments, "One machine that waits.",
            answers: [Route.Answer(200, "The enrollment.", pendingSchema)]
        ) { (request) async throws(Problem) in
            guard let entry = enrollment.pending(try id(request)) else {
                throw .notFound("no enrollment \(request["id"].prefix(64)) waits for approval")
            }
            return .json(json(entry))
        },
        Route(
            .post, "/api/v1/enrollments/{id}/approve", right: .decideEnrollments,
            "Makes the machine a client. Compare the fingerprint with the one that the agent shows.",
            body: .json(
                .object([
                    .optional("name", .string(length: 0...255)), .optional("labels", .map(.any(), count: 0...64)),
                ])),
            answers: [Route.Answer(201, "The new client.", .object([.required("client", .string())]))]
        ) { (request) async throws(Problem) in
            let labels = try Reading.labels(request.json["labels"], removing: false).compactMapValues { $0 }
            let client = try await enrollment.approve(
                try id(request), name: request.json["name"]?.string ?? "", labels: labels, by: request.principal)
            return .created(["client": .string(client.description)], at: "/api/v1/clients/\(client)")
        },
        Route(
            .post, "/api/v1/enrollments/{id}/reject", right: .decideEnrollments,
            "Sends the machine away; its key is refused for a day.", body: .json(Reading.reason),
            answers: [Route.Answer(204, "Rejected.")]
        ) { (request) async throws(Problem) in
            try await enrollment.reject(try id(request), reason: Reading.reason(request), by: request.principal)
            return .empty
        },
    ]
}

private func id(_ request: Request) throws(Problem) -> EnrollmentID {
    guard let id = EnrollmentID(request["id"]) else {
        throw .invalid("'\(request["id"].prefix(64))' is no enrollment id (26 characters)")
    }
    return id
}

private let pendingSchema = Schema.object([
    .required("id", .string()), .required("fingerprint", .string("Of the machine's key; the agent shows the same.")),
    .required("hostname", .string()), .required("address", .string()), .required("agent_version", .string()),
    .required("boot_id", .string()), .required("asked_ms", .integer()), .required("lapses_ms", .integer()),
])

private func json(_ entry: PendingEnrollment) -> JSONValue {
    [
        "id": .string(entry.id.description), "fingerprint": .string(entry.fingerprint),
        "hostname": .string(entry.hostname), "address": .string(entry.address),
        "agent_version": .string(entry.agentVersion), "boot_id": .string(entry.bootID),
        "asked_ms": .milliseconds(entry.askedAt), "lapses_ms": .milliseconds(entry.lapsesAt),
    ]
}

private func json(_ policy: EnrollmentPolicy) -> JSONValue {
    ["auto_approve": .bool(policy.autoApprove), "labels": .labels(policy.labels)]
}
