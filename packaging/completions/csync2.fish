complete -c csync2 -s C -d 'Use the configuration csync2_config-name.cfg and a database of its own.' -r -f
complete -c csync2 -s p -d 'Listen on this port and connect to it on the peers (default: 30865).' -r -f
complete -c csync2 -s N -d 'When running in stand-alone mode with -ii bind to a specific interface. You can pass either a hostname or ip address. If used, this value must match exactly the host value in each csync2.cfg file.' -r -f -a "(__fish_print_hostnames)"
complete -c csync2 -s G -d 'Only use these groups from config-file.' -r -f
complete -c csync2 -s P -d 'Only update these peers (still mark all as dirty). Only show files for these peers in -o (compare) mode.' -r -f
complete -c csync2 -s s -d 'Print timestamps also to this file.' -r -F
complete -c csync2 -s W -d 'Write a list of directories in which relevant files can be found to the specified file descriptor (when doing a -c run). The directory names in this output are zero-terminated.' -r -f
complete -c csync2 -s O -d 'Write everything that -vvv would print to a file as well (default: a new file in /tmp). The name must be attached to the option.' -r -F
complete -c csync2 -l warning -d 'With --status: exit with 1 when so many files wait for a peer, or one for so long: 100, 2h or 100,2h (default: 1h).' -r -f
complete -c csync2 -l critical -d 'The same, with 2 (default: 1d).' -r -f
complete -c csync2 -l metrics -d 'At the end of -x, -c, -u and --status write how things are for Prometheus (the node exporter\'s textfile collector).' -r -f
complete -c csync2 -s D -d 'default: /var/lib/csync2' -r -F
complete -c csync2 -s k -d '' -r -F
complete -c csync2 -s h -d 'Add (recursive) hints for check to db'
complete -c csync2 -s c -d 'Check files and maybe add to dirty db; Check all hints in db and eventually mark files as dirty'
complete -c csync2 -s u -d 'Updates files if listed in dirty db; Update (transfer dirty files to peers and mark as clear)'
complete -c csync2 -s o -d 'Create list of files in compare-mode'
complete -c csync2 -s f -d 'Force files to win next conflict resolution'
complete -c csync2 -s m -d 'Mark files in database as dirty'
complete -c csync2 -s x -d 'Run checks for all given files and update remote hosts.'
complete -c csync2 -s H -d 'List all pending hints from status db'
complete -c csync2 -s L -d 'List all file-entries from status db'
complete -c csync2 -s M -d 'List all dirty files from status db'
complete -c csync2 -s S -d 'List file-entries from status db for this synchronization pair.'
complete -c csync2 -s T -d 'Test if everything is in sync with all peers.; Test if this file is in sync with all peers.; Test if this synchronization pair is in sync.; Test only this file in this sync pair.; As -T, but print the unified diffs.'
complete -c csync2 -s R -d 'Remove files from database which do not match config entries.'
complete -c csync2 -s i -d 'Run in inetd server mode.; Run in stand-alone server mode.; Run in stand-alone server mode (one connect only).'
complete -c csync2 -l status -d 'Tell how things are: what waits for each peer, and how the last sessions and runs went. For people, and as a plugin of Nagios.'
complete -c csync2 -l ls-ssl-cert -d 'List the certificates that are pinned for peers: fingerprint, key, subject and dates.'
complete -c csync2 -l rm-ssl-cert -d 'Forget the certificate that is pinned for a peer: the next one it shows is pinned.'
complete -c csync2 -l gen-ssl-cert -d 'Make a key and a certificate for this host, where there are none.'
complete -c csync2 -l init -d 'Make csync2.cfg for this host and the given ones, a key and a certificate, where there are none, and say what is still in the way.'
complete -c csync2 -l join -d 'Bring this host into step with a running one: take over what is equal, and have the rest pushed here.'
complete -c csync2 -l check-config -d 'Check csync2.cfg and warn about what it hardly means; of the given files, say why they are in a group or not.'
complete -c csync2 -l import-db -d 'Copy the state that another database holds, of any csync2, into the one given by -D, which must be empty.'
complete -c csync2 -s l -d 'Send some messages to syslog instead of stderr to not clobber the protocol in case stdout and stderr point to the same fd. Default for inetd mode.'
complete -c csync2 -s r -d 'Recursive operation over subdirectories'
complete -c csync2 -s d -d 'Dry-run on all remote update operations'
complete -c csync2 -s v -d 'Say more about what is done. May be given up to three times.'
complete -c csync2 -s B -d 'Do not block everything into big SQL transactions. This is always so: the option is accepted for old scripts.'
complete -c csync2 -s A -d 'Open database in asynchronous mode. This will cause data corruption if the operating system crashes or the computer loses power.'
complete -c csync2 -s I -d 'Init-run. Use with care and read the documentation first! You usually do not need this option unless you are initializing groups with really large file lists.'
complete -c csync2 -s X -d 'Also add removals to dirty db when doing a -TI run.'
complete -c csync2 -s U -d 'Don\'t mark all other peers as dirty when doing a -TI run.'
complete -c csync2 -s F -d 'Add new entries to dirty database with force flag set.'
complete -c csync2 -s t -d 'Print timestamps to debug output (e.g. for profiling).'
complete -c csync2 -s a -d 'Send files with their attributes in one step. This is done wherever the peer can; accepted for old scripts.'
complete -c csync2 -s b -d 'Clear a peer\'s dirty entries in batches. This is always done; accepted for old scripts.'
complete -c csync2 -l auto-name -d 'Where this host\'s name is in no group, take the only name in csync2.cfg that resolves to an address of this machine.'
complete -c csync2 -l allow-mass-removal -d 'Mark for removal what a check found gone even where it looks like a missing directory or an unmounted file system.'
complete -c csync2 -l no-batches -d 'Do not speak the batch dialect, which is for hosts that both run this program, but the one of older ones.'
complete -c csync2 -l no-legacy-tls -d 'Refuse certificates with RSA keys below 2048 bits and those of X.509 version 1, ours included.'
complete -c csync2 -l json -d 'Print the results of -x, -c, -u, --status and the listings as JSON, an object a line.'
complete -c csync2 -l no-progress -d 'No progress bars, which -x, -c and -u show on a terminal.'
complete -c csync2 -l help -d 'Print this text.'
complete -c csync2 -l version -d 'Print name and version.'
