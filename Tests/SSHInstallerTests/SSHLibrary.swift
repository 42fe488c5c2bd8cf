/// Stands in for the plugin's one: what the machine's libssh2 can do is for a test to say.
enum SSHLibrary {
    @TaskLocal static var signsRSAWithSHA2 = true
    static let version = "1.10.0"
}
