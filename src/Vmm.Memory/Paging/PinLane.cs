using System.Runtime.CompilerServices;
using System.Runtime.InteropServices;
using Vmm.Interop;

namespace Vmm.Memory.Paging;

/// <summary>
/// What transfers of one thread pin: a count for each group, written by that thread without a locked operation, and beside it a count of
/// what other threads released. Pinned is the difference. The lane without a thread is for all who have no lane of their own: locked.
/// </summary>
internal sealed unsafe class PinLane : IDisposable
{
    private readonly AnonymousMapping _counts;
    private readonly uint* _pinned;   // by the owner
    private readonly uint* _returned; // by others
    private Account _account;
    private int _taken;

    /// <param name="groups">How many groups there are.</param>
    /// <param name="isShared">It is nobody's own.</param>
    /// <exception cref="KernelException">Out of memory.</exception>
    internal PinLane(ulong groups, bool isShared)
    {
        ulong bytes = Math.Max(1, ((groups * sizeof(uint)) + 4095) & ~4095UL);
        _counts = new AnonymousMapping(2 * bytes); // memory appears where it is used
        _pinned = (uint*)_counts.Address;
        _returned = (uint*)((ulong)_counts.Address + bytes);
        IsShared = isShared;
    }

    /// <summary>It is nobody's own.</summary>
    internal bool IsShared { get; }

    /// <summary>Pages that its thread has pinned and not told yet; others look at it.</summary>
    internal ref long Untold => ref _account.Untold;

    /// <summary>Transfers that found their pages.</summary>
    internal ref long Hits => ref _account.Hits;

    /// <summary>Makes it a thread's own; false when it is one's.</summary>
    internal bool TryTake() => !IsShared && Interlocked.Exchange(ref _taken, 1) == 0;

    /// <summary>Its thread ended. What is pinned stays so.</summary>
    internal void GiveBack() => Volatile.Write(ref _taken, 0);

    /// <summary>Pins a group, on the thread of the lane. <see cref="PinTable.Fence"/> says who sees it.</summary>
    [MethodImpl(MethodImplOptions.AggressiveInlining)]
    internal void Pin(ulong group)
    {
        if (IsShared)
        {
            Interlocked.Increment(ref _pinned[group]);
        }
        else
        {
            Volatile.Write(ref _pinned[group], _pinned[group] + 1);
        }
    }

    /// <summary>Ends a pin.</summary>
    /// <param name="group">The group.</param>
    /// <param name="isOwn">The calling thread is that of the lane.</param>
    [MethodImpl(MethodImplOptions.AggressiveInlining)]
    internal void Unpin(ulong group, bool isOwn)
    {
        if (isOwn && !IsShared)
        {
            Volatile.Write(ref _pinned[group], _pinned[group] - 1);
        }
        else
        {
            Interlocked.Increment(ref _returned[group]);
        }
    }

    /// <summary>
    /// Pins of a group, never fewer than there are all the time: what was returned is read first, and what is pinned later.
    /// </summary>
    /// <param name="group">The group.</param>
    /// <param name="turn">Called between the two: a test's threads take turns there.</param>
    internal uint Pins(ulong group, Action? turn)
    {
        uint returned = Volatile.Read(ref _returned[group]);
        turn?.Invoke();
        return Volatile.Read(ref _pinned[group]) - returned;
    }

    /// <inheritdoc/>
    public void Dispose() => _counts.Dispose();

    /// <summary>Alone in its cache lines.</summary>
    [StructLayout(LayoutKind.Explicit, Size = 192)]
    private struct Account
    {
        [FieldOffset(64)]
        internal long Untold;

        [FieldOffset(72)]
        internal long Hits;
    }
}
