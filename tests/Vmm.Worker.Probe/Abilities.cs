using System.Runtime.InteropServices;
using System.Text;

namespace Vmm.Worker.Probe;

/// <summary>What an intruder would do with this process: reach files and sockets, by system calls and through rings.</summary>
internal sealed unsafe class Abilities
{
    private const int AtCwd = -100, Close = 3, Mmap = 9, Setup = 425, Enter = 426;
    private const int OpOpen = 18, OpConnect = 16, OpUnlink = 36, OpSocket = 45; // IORING_OP_*
    private const uint Entries = 64, Completions = 256, CqSize = 8; // as Vmm.Interop.IoUring has them

    private readonly StringBuilder _said = new();
    private readonly int _socket = (int)Libc.SystemCall(41, 1, 1, 0, 0, 0, 0); // made before the filter closes
    private uint* _parameters;
    private int _ring = -1;

    /// <summary>Remembers the first ring of this process, and where the parts of one lie; before the filter closes.</summary>
    internal void FindRing()
    {
        foreach (string file in Directory.GetFiles("/proc/self/fd"))
        {
            if (File.ResolveLinkTarget(file, returnFinalTarget: false)?.Name.Contains("[io_uring]", StringComparison.Ordinal) == true)
            {
                _ring = int.Parse(Path.GetFileName(file), System.Globalization.CultureInfo.InvariantCulture);
            }
        }

        _parameters = NewParameters();
        long like = Libc.SystemCall(Setup, (nint)Entries, (nint)_parameters, 0, 0, 0, 0);
        if (_ring < 0 || like < 0)
        {
            throw new InvalidOperationException("there is no ring to try");
        }

        Libc.SystemCall(Close, (nint)like, 0, 0, 0, 0, 0);
    }

    internal string Try(string file, string socket)
    {
        byte[] address = new byte[110];
        address[0] = 1;
        Encoding.UTF8.GetBytes(socket, address.AsSpan(2));
        nint to = Marshal.AllocHGlobal(110), path = Marshal.StringToHGlobalAnsi(file), how = (nint)NativeMemory.AllocZeroed(64);
        Marshal.Copy(address, 0, to, 110);
        Say("open", Libc.SystemCall(2, path, 0, 0, 0, 0, 0));
        Say("openat", Libc.SystemCall(257, AtCwd, path, 0, 0, 0, 0));
        Say("openat2", Libc.SystemCall(437, AtCwd, path, how, 24, 0, 0));
        Say("creat", Libc.SystemCall(85, path, 0x180, 0, 0, 0, 0));
        Say("truncate", Libc.SystemCall(76, path, 0, 0, 0, 0, 0));
        Say("unlink", Libc.SystemCall(87, path, 0, 0, 0, 0, 0));
        Say("unlinkat", Libc.SystemCall(263, AtCwd, path, 0, 0, 0, 0));
        Say("rename", Libc.SystemCall(82, path, path, 0, 0, 0, 0));
        Say("renameat2", Libc.SystemCall(316, AtCwd, path, AtCwd, path, 0, 0));
        Say("link", Libc.SystemCall(86, path, path + 1, 0, 0, 0, 0));
        Say("symlink", Libc.SystemCall(88, path, path, 0, 0, 0, 0));
        Say("socket unix", Libc.SystemCall(41, 1, 1, 0, 0, 0, 0));
        Say("socket inet", Libc.SystemCall(41, 2, 1, 0, 0, 0, 0));
        Say("socket netlink", Libc.SystemCall(41, 16, 3, 0, 0, 0, 0));
        Say("socketpair inet", Libc.SystemCall(53, 2, 1, 0, how, 0, 0));
        Say("connect", Libc.SystemCall(42, _socket, to, 110, 0, 0, 0));
        Say("bind", Libc.SystemCall(49, _socket, to, 110, 0, 0, 0));
        Say("io_submit", Libc.SystemCall(209, 0, 1, how, 0, 0, 0)); // the older interface of the kind
        Through("pool ring", _ring, path, to);
        return _said.ToString();
    }

    internal string TryOwnRing(string file)
    {
        uint* parameters = NewParameters();
        long ring = Libc.SystemCall(Setup, (nint)Entries, (nint)parameters, 0, 0, 0, 0);
        Say("io_uring_setup", ring);
        if (ring >= 0)
        {
            Through("own ring", (int)ring, Marshal.StringToHGlobalAnsi(file), 0);
        }

        return _said.ToString();
    }

    private static uint* NewParameters()
    {
        uint* parameters = (uint*)NativeMemory.AllocZeroed(120); // struct io_uring_params
        parameters[1] = Completions;
        parameters[2] = CqSize;
        return parameters;
    }

    private void Through(string name, int ring, nint path, nint address)
    {
        nint queue = (nint)Libc.SystemCall(Mmap, 0, 16384, 3, 1, ring, 0),
            entries = (nint)Libc.SystemCall(Mmap, 0, 4096, 3, 1, ring, 0x10000000);
        if (queue < 0 || entries < 0)
        {
            Say(name + " mapped", -1);
            return;
        }

        Say(name + " open", Submit(ring, queue, entries, OpOpen, AtCwd, 0, path, 0));
        Say(name + " unlink", Submit(ring, queue, entries, OpUnlink, AtCwd, 0, path, 0));
        Say(name + " socket", Submit(ring, queue, entries, OpSocket, 2, 1, 0, 0));
        if (address != 0)
        {
            Say(name + " connect", Submit(ring, queue, entries, OpConnect, _socket, 110, address, 0));
        }
    }

    /// <summary>One request: its result, with a negative errno left where the C library leaves it.</summary>
    private long Submit(int ring, nint queue, nint entries, byte operation, int fd, ulong offset, nint address, uint length)
    {
        uint* sq = _parameters + 10, cq = _parameters + 20; // sq_off, cq_off: head, tail, mask, ...; array of sq at 6, cqes of cq at 5
        uint tail = *(uint*)(queue + (nint)sq[1]), slot = tail & *(uint*)(queue + (nint)sq[2]), seen = *(uint*)(queue + (nint)cq[1]);
        byte* entry = (byte*)entries + (slot * 64);
        new Span<byte>(entry, 64).Clear();
        entry[0] = operation;
        *(int*)(entry + 4) = fd;
        *(ulong*)(entry + 8) = offset;
        *(nint*)(entry + 16) = address;
        *(uint*)(entry + 24) = length;
        *((uint*)(queue + (nint)sq[6]) + slot) = slot;
        Volatile.Write(ref *(uint*)(queue + (nint)sq[1]), tail + 1);
        long submitted = Libc.SystemCall(Enter, ring, 1, 1, 1 /* IORING_ENTER_GETEVENTS */, 0, 0);
        if (submitted < 0)
        {
            return submitted;
        }

        if (Volatile.Read(ref *(uint*)(queue + (nint)cq[1])) == seen)
        {
            return -1;
        }

        int result = *(int*)(queue + (nint)cq[5] + (nint)((seen & *(uint*)(queue + (nint)cq[2])) * 16) + 8);
        *(uint*)(queue + (nint)cq[0]) = seen + 1;
        Marshal.SetLastPInvokeError(result < 0 ? -result : 0);
        return result < 0 ? -1 : result;
    }

    private void Say(string what, long result) =>
        _said.Append(what).Append(": ").Append(result < 0 ? $"errno {Marshal.GetLastPInvokeError()}" : "DONE").Append('\n');
}
