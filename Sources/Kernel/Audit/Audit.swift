/// The audit trail. Writing is `Transaction.audit`.
public enum Audit {}
