/// What runs on a host as root. POSIX shell; every word that is not ours is quoted; no secret is part of a script.
enum Scripts {
    /// Shell functions that several scripts need.
    private static let functions = """
        set -u; LC_ALL=C; export LC_ALL; umask 022
        P=\(Shell.quoted(Places.program)); D=\(Shell.quoted(Places.directory)); U=\(Shell.quoted(Places.unit)); K=\(Shell.quoted(Places.releaseKey))
        has_systemd() { [ -d /run/systemd/system ] && command -v systemctl >/dev/null 2>&1; }
        # Processes of the agent: with an argument only those whose first argument is that.
        agents() {
            for p in /proc/[0-9]*; do
                e=$(readlink "$p/exe" 2>/dev/null) || continue
                case "${e% (deleted)}" in "$P"|"$P".replaced|"$P".new|"$P".staged|"$P".previous) ;; *) continue;; esac
                [ $# = 0 ] || [ "$(tr '\\0' '\\n' <"$p/cmdline" 2>/dev/null | sed -n 2p)" = "$1" ] || continue
                echo "${p#/proc/}"
            done
        }
        gone() { # seconds
            i=0
            while [ -n "$(agents run)" ]; do
                i=$((i + 1)); [ $i -le $(($1 * 10)) ] || return 1
                sleep 0.1
            done
        }
        stop_agent() {
            if has_systemd && [ -e "$U" ]; then systemctl stop cm-agent.service; fi
            for p in $(agents run); do kill -TERM "$p" 2>/dev/null; done
            gone 10 || { for p in $(agents run); do kill -KILL "$p" 2>/dev/null; done; gone 5; }
        }
        # Holders and what they run, which outlive the agent on purpose.
        end_holders() {
            if has_systemd && [ -e "$U" ]; then systemctl kill --signal=KILL cm-agent.service 2>/dev/null; fi
            for h in $(agents hold); do
                for p in /proc/[0-9]*; do
                    [ "$(sed -n 's/^PPid:[[:space:]]*//p' "$p/status" 2>/dev/null)" = "$h" ] || continue
                    kill -KILL -- "-${p#/proc/}" 2>/dev/null || kill -KILL "${p#/proc/}" 2>/dev/null
                done
                kill -KILL "$h" 2>/dev/null
            done
            # And who watches over a program that is on trial.
            for p in $(agents); do kill -KILL "$p" 2>/dev/null; done
            i=0; while [ -n "$(agents)" ] && [ $i -lt 50 ]; do i=$((i + 1)); sleep 0.1; done
        }
        start_agent() {
            if has_systemd; then systemctl restart cm-agent.service; else "$P.start"; fi
        }

        """

    /// What of an agent is there.
    static let examine = functions + """
        [ -e "$P" ] && echo "program=$(sha256sum <"$P" | cut -d' ' -f1)"
        [ -e "$U" ] && echo unit=yes
        [ -s \(Shell.quoted(Places.key)) ] && echo identity=yes
        echo "client=$(sed -n 's/.*"client" *: *"\\([0-9A-Z]*\\)".*/\\1/p' \(Shell.quoted(Places.state)) 2>/dev/null | head -n 1)"
        [ -d "$D" ] && [ -n "$(ls -A "$D")" ] && echo directory=yes
        [ -e "$P.replaced" ] && echo previous=yes
        [ -e \(Shell.quoted(Places.marker)) ] && echo "marker=$(head -n 1 \(Shell.quoted(Places.marker)))"
        exists=${P%/*}; while [ ! -d "$exists" ]; do exists=${exists%/*}; [ -n "$exists" ] || exists=/; done
        echo "free=$(df -Pk "$exists" | sed -n 2p | tr -s ' ' | cut -d' ' -f4)"
        true
        """

    static func begin(_ action: String) -> String {
        functions + "mkdir -p \"${P%/*}\" && echo \(Shell.quoted(action)) >\(Shell.quoted(Places.marker))"
    }

    /// Standard input becomes the new program; says its hash, and what it says of itself.
    static let receiveProgram = functions + """
        mkdir -p "${P%/*}" && cat >"$P.new" && chmod 0755 "$P.new" || exit 1
        echo "sha256=$(sha256sum <"$P.new" | cut -d' ' -f1)"
        """

    static let tryProgram = functions + """
        version=$("$P.new" version 2>&1) || {
            echo "$version" >&2
            ldd "$P.new" 2>/dev/null | sed -n 's/^[[:space:]]*\\(.*\\) => not found/it lacks \\1/p' >&2
            exit 1
        }
        echo "version=$version"
        """

    /// Standard input becomes the token: root's alone from its first byte on.
    static let receiveToken = functions + """
        umask 077
        mkdir -p "$D" && chmod 0700 "$D" || exit 1
        # Never through a link: the directory may belong to the agent's user.
        rm -f "$D/enroll-token.part"; set -C
        cat >"$D/enroll-token.part" && mv "$D/enroll-token.part" "$D/enroll-token"
        """

    /// Standard input becomes the key whose releases the new agent takes; `cm-agent install` looks at it and puts it into its place.
    static let receiveReleaseKey = functions + """
        cat >"$P.release-key"
        """

    static let keepPrevious = functions + """
        if [ -e "$P" ]; then cp -p "$P" "$P.replaced" || exit 1; fi
        if [ -e "$U" ]; then cp -p "$U" "$U.replaced" || exit 1; fi
        """

    /// The new program installs itself: program, unit, start. `arguments` are those of `cm-agent install`.
    static func install(_ arguments: [String], plain run: [String], runsAs user: String?) -> String {
        let words = Shell.command(arguments)
        var program = Shell.command(run)
        if let user {
            let name = Shell.quoted(user)
            program = "setpriv --reuid=\(name) --regid=\"$(id -g \(name))\" --init-groups " + program
        }
        let key = Shell.quoted(Places.releaseKey)
        let start = "exec setsid \(program) \"$@\" </dev/null >/dev/null 2>\(Shell.quoted(Places.log)) &"
        return functions + """
            # Whose releases it takes was fixed when it was installed first, and stays.
            set --
            if [ -s "$K" ]; then
                if [ -e "$P.release-key" ] && [ "$(sha256sum <"$K")" != "$(sha256sum <"$P.release-key")" ]; then
                    echo "the agent there takes releases of another key, which was fixed when it was installed: uninstall it first" >&2
                    exit 1
                fi
                set -- --release-key "$K"
            elif [ -e "$P.release-key" ]; then set -- --release-key "$P.release-key"; fi
            "$P.new" install \(words) "$@" || exit 1
            has_systemd && exit 0
            umask 077
            cat >"$P.start" <<'END-OF-START'
            #!/bin/sh
            # Starts the agent where no systemd runs; written by the SSH installer.
            set --; if [ -s \(key) ]; then set -- --release-key \(key); fi
            cd / && \(start)
            END-OF-START
            chmod 0700 "$P.start" && stop_agent && start_agent
            """
    }

    /// The program alone is another one; unit and data stay.
    static let swapProgram = functions + """
        mv "$P.new" "$P" || exit 1
        has_systemd || stop_agent
        start_agent
        """

    /// Back to what was there before an upgrade or repair.
    static let restorePrevious = functions + """
        stop_agent
        if [ -e "$U.replaced" ]; then mv "$U.replaced" "$U"; has_systemd && systemctl daemon-reload; fi
        if [ -e "$P.replaced" ]; then mv "$P.replaced" "$P" || exit 1; fi
        rm -f "$P.new" "$P.release-key" "$D/enroll-token" "$D/enroll-token.part" \(Shell.quoted(Places.marker))
        if has_systemd || [ -e "$P.start" ]; then start_agent; fi
        """

    static let finish = functions + """
        rm -f "$P.new" "$P.release-key" "$P.replaced" "$U.replaced" \(Shell.quoted(Places.marker)) "$D/enroll-token" "$D/enroll-token.part"
        """

    /// Nothing of it stays. Says what is still there.
    static let remove = functions + """
        if has_systemd && [ -e "$U" ]; then systemctl disable --now cm-agent.service >/dev/null 2>&1; fi
        stop_agent
        end_holders
        # What the program itself knows to remove; one that does not work is given little time.
        if [ -x "$P" ] && command -v timeout >/dev/null 2>&1; then timeout 20 "$P" uninstall --purge >/dev/null 2>&1; fi
        rm -f "$P" "$P.new" "$P.release-key" "$P.replaced" "$P.staged" "$P.previous" "$P.start" "$K" "$U" "$U.replaced" \(Shell.quoted(Places.marker)) \(Shell.quoted(Places.log))
        rm -f /etc/systemd/system/multi-user.target.wants/cm-agent.service
        rm -rf "$D"; rmdir "${K%/*}" 2>/dev/null
        if has_systemd; then systemctl daemon-reload; systemctl reset-failed cm-agent.service 2>/dev/null; fi
        left=
        for f in \(Shell.command(Places.all)); do [ -e "$f" ] && left="$left $f"; done
        for p in $(agents); do left="$left process:$p"; done
        echo "left=$left"
        [ -z "$left" ]
        """

    /// Waits a little for the agent's id; says whether its program still runs.
    static let look = functions + """
        i=0
        while [ $i -lt 10 ]; do
            c=$(sed -n 's/.*"client" *: *"\\([0-9A-Z]*\\)".*/\\1/p' \(Shell.quoted(Places.state)) 2>/dev/null | head -n 1)
            [ -n "$c" ] && break
            i=$((i + 1)); sleep 0.1
        done
        echo "client=$c"
        [ -n "$(agents run)" ] && echo alive=yes
        has_systemd && echo "restarts=$(systemctl show --property=NRestarts --value cm-agent.service)"
        true
        """

    /// The last lines that the agent said.
    static let lastLines = functions + """
        if has_systemd; then journalctl --no-pager -o cat -n 12 -u cm-agent.service 2>/dev/null
        else tail -n 12 \(Shell.quoted(Places.log)) 2>/dev/null; fi
        true
        """
}
