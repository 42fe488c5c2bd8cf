extension Setting {
    public static let fileStoreMiB = Setting(
        "file_store_mib", .integer(0...1 << 40), initial: 102_400,
        "MiB that the files of the managed store may have together")
    public static let fileSizeMiB = Setting(
        "file_size_mib", .integer(0...1 << 40), initial: 65_536, "MiB that one file of the managed store may have")
    public static let fileReserveMiB = Setting(
        "file_reserve_mib", .integer(0...1 << 40), initial: 256,
        "MiB that files leave free on the disk of the data directory")
    public static let fileRetentionDays = Setting(
        "file_retention_days", .integer(0...36_500), initial: 7,
        "days that a stored file is kept unless its maker says otherwise; 0: for ever")
    public static let fileUnfinishedHours = Setting(
        "file_unfinished_hours", .integer(1...8_760), initial: 24,
        "hours after which an unfinished file is removed when nothing was added to it")

    static let files = [fileStoreMiB, fileSizeMiB, fileReserveMiB, fileRetentionDays, fileUnfinishedHours]
}
