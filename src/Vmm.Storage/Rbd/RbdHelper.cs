using System.Diagnostics;
using System.Globalization;
using System.Runtime.InteropServices;
using System.Text;
using Vmm.Interop;
using Vmm.Storage.Nbd;

namespace Vmm.Storage.Rbd;

/// <summary>How the process of a disk is started.</summary>
public sealed record RbdHelperOptions
{
    /// <summary>The program, <c>vmm-rbd</c>.</summary>
    public required string Program { get; init; }

    /// <summary>Where it is to listen, in a folder of this user alone; at most 107 bytes.</summary>
    public required string Socket { get; init; }

    /// <summary>The disk. Conf and keyring are opened with the rights of who starts the process.</summary>
    public required RbdOptions Disk { get; init; }

    /// <summary>The user that it becomes; null: it stays who starts it.</summary>
    public uint? User { get; init; }

    /// <summary>Makes its standard error; null: that of who starts it.</summary>
    public Func<FileDescriptorHandle>? Errors { get; init; }

    /// <summary>How long opening the image may take.</summary>
    public TimeSpan OpenPatience { get; init; } = TimeSpan.FromSeconds(60);
}

/// <summary>
/// Starts the process that has a Ceph RBD disk, and connects to it. The process outlives who started it: one that is found listening is
/// used, and one that is gone is started again. It ends by itself when its client says goodbye or stays away.
/// </summary>
public sealed class RbdHelper(RbdHelperOptions options) : INbdConnector
{
    /// <summary>Name of the program.</summary>
    public const string ProgramName = "vmm-rbd";

    /// <summary>What the process says when it has the image, in a line, and what it says before the reason why not.</summary>
    private const string Ready = "ready", Failed = "failed ";

    private const int MostFile = 1 << 20, MostStatus = 4096, LookMilliseconds = 50;

    private static readonly Dictionary<string, string> s_noEnvironment = new(StringComparer.Ordinal);
    private static readonly TimeSpan s_pause = TimeSpan.FromSeconds(1); // between two starts
    private static readonly TimeSpan s_reconnectPatience = TimeSpan.FromSeconds(5);

    private long _started;

    /// <summary>Starts the process for a machine that begins, and waits until it has the image.</summary>
    /// <returns>A connected socket.</returns>
    /// <exception cref="IOException">It cannot be started, or does not get the image; says why.</exception>
    public FileDescriptorHandle Open()
    {
        try
        {
            RbdLibrary.Load(); // what is missing is told before anything is started
        }
        catch (RbdUnavailableException missing)
        {
            throw new IOException(missing.Message, missing);
        }

        using CancellationTokenSource patience = new(options.OpenPatience);
        if (FileFacts.TryOf(options.Socket, out FileFacts before))
        {
            SocketFile.RemoveIfSame(options.Socket, before); // of an earlier one, which may still be going
        }

        using UnixStream status = Start();
        FileDescriptorHandle socket = Connect(out _) ?? throw new IOException(Ended);
        try
        {
            return WaitReady(status, patience.Token) ? socket
                : throw new IOException($"the cluster does not answer within {options.OpenPatience.TotalSeconds:0} s: are its OSDs up?");
        }
        catch
        {
            socket.Dispose();
            throw;
        }
    }

    /// <summary>Connects to the process, which is started when it is gone. The disk may greet later, when its cluster answers.</summary>
    /// <exception cref="IOException">It cannot be started, or does not get the image; says why.</exception>
    public async Task<FileDescriptorHandle> ConnectAsync(CancellationToken cancel)
    {
        if (Connect(out int errno) is { } found)
        {
            return found;
        }

        if (errno is not (Errno.ECONNREFUSED or Errno.ENOENT))
        {
            throw new IOException($"connect to {options.Socket}: {Text(errno)}");
        }

        TimeSpan since = Stopwatch.GetElapsedTime(_started);
        if (_started != 0 && since < s_pause)
        {
            await Task.Delay(s_pause - since, cancel).ConfigureAwait(false);
        }

        using UnixStream status = Start();
        FileDescriptorHandle socket = Connect(out _) ?? throw new IOException(Ended);
        using CancellationTokenSource patience = CancellationTokenSource.CreateLinkedTokenSource(cancel);
        patience.CancelAfter(s_reconnectPatience);
        try
        {
            _ = WaitReady(status, patience.Token);
            return socket;
        }
        catch
        {
            socket.Dispose();
            throw;
        }
    }

    /// <summary>Of the process itself: tells who started it that it has the image, or why not.</summary>
    /// <param name="status">The descriptor that was passed for that.</param>
    /// <param name="problem">What is wrong; null when nothing is.</param>
    public static void Say(UnixStream status, string? problem) =>
        _ = status.Send(Encoding.UTF8.GetBytes(problem is null ? Ready + "\n" : Failed + problem.ReplaceLineEndings(" ") + "\n"));

    private static string Ended => "the disk's process (vmm-rbd) ended as soon as it was started; its last words are in the log";

    private FileDescriptorHandle? Connect(out int errno) => UnixStream.ConnectNoFollow(options.Socket, out errno);

    // Its end of the status is with the process alone.
    private UnixStream Start()
    {
        _started = Stopwatch.GetTimestamp();
        using FileDescriptorHandle conf = MemoryFile.Create("ceph.conf", ReadFile(options.Disk.Conf));
        using FileDescriptorHandle keyring = MemoryFile.Create("ceph.keyring", ReadFile(options.Disk.Keyring));
        (UnixStream status, FileDescriptorHandle theirs) = UnixStream.CreatePair();
        try
        {
            using (theirs)
            using (FileDescriptorHandle? errors = options.Errors?.Invoke())
            {
                UnixListener listener = new(options.Socket);
                try
                {
                    ProcessHandle process = ProcessHandle.Spawn(options.Program, Arguments(), s_noEnvironment,
                        [listener.Handle, theirs, conf, keyring], isolated: false, errors);
                    _ = Task.Factory.StartNew(() => Reap(process), CancellationToken.None, TaskCreationOptions.LongRunning,
                        TaskScheduler.Default);
                }
                catch
                {
                    listener.Dispose();
                    throw;
                }

                listener.Leave();
                return status;
            }
        }
        catch (KernelException cause)
        {
            status.Dispose();
            throw new IOException(cause.Message, cause);
        }
        catch
        {
            status.Dispose();
            throw;
        }
    }

    private string[] Arguments()
    {
        RbdOptions disk = options.Disk;
        return
        [
            "--serve", "--name", disk.Name, "--pool", disk.Pool, "--namespace", disk.Namespace, "--image", disk.Image, "--user", disk.User,
            .. disk.ReadOnly ? ["--read-only"] : Array.Empty<string>(),
            .. disk.WriteBack ? ["--write-back"] : Array.Empty<string>(),
            .. options.User is { } user ? ["--become", user.ToString(CultureInfo.InvariantCulture)] : Array.Empty<string>(),
        ];
    }

    // True when it has the image, false when the time is over.
    private static bool WaitReady(UnixStream status, CancellationToken cancel)
    {
        byte[] said = new byte[MostStatus];
        int count = 0;
        while (!cancel.IsCancellationRequested)
        {
            Span<PollEntry> one = [new PollEntry(status, read: true)];
            if (Poll.Wait(one, LookMilliseconds) == 0)
            {
                continue;
            }

            int received = count < said.Length ? status.Receive(said.AsSpan(count)) : 0;
            count += Math.Max(0, received);
            string text = Encoding.UTF8.GetString(said, 0, count);
            if (received == 0 || text.EndsWith('\n'))
            {
                text = text.Trim();
                return string.Equals(text, Ready, StringComparison.Ordinal) ? true
                    : throw new IOException(text.StartsWith(Failed, StringComparison.Ordinal) ? text[Failed.Length..] : Ended);
            }
        }

        return false;
    }

    private static byte[] ReadFile(string path)
    {
        try
        {
            using FileStream file = new(path, FileMode.Open, FileAccess.Read, FileShare.ReadWrite);
            return file.Length > MostFile ? throw new IOException($"{path}: {file.Length} bytes, expected at most {MostFile}")
                : ReadAll(file);
        }
        catch (UnauthorizedAccessException cause)
        {
            throw new IOException(cause.Message, cause);
        }
    }

    private static byte[] ReadAll(FileStream file)
    {
        byte[] bytes = new byte[file.Length];
        file.ReadExactly(bytes);
        return bytes;
    }

    private static void Reap(ProcessHandle process)
    {
        using (process)
        {
            _ = process.Wait(-1);
        }
    }

    private static string Text(int errno) => Marshal.GetPInvokeErrorMessage(errno);
}
