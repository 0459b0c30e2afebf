using System.Runtime.InteropServices;
using Vmm.Interop;

namespace Vmm.Io;

/// <summary>
/// What a loop without a ring waits with: poll(2) over everything that was begun and has not ended. Each poll ends once, as in a ring.
/// Belongs to the loop's thread.
/// </summary>
internal sealed class PollSet
{
    private PollEntry[] _entries = new PollEntry[8];
    private ulong[] _tags = new ulong[8];
    private int _count;

    /// <summary>Begins to wait. The file stays open until the poll ended or was taken away.</summary>
    internal void Add(SafeHandle file, PollEvents events, ulong tag)
    {
        if (_count == _entries.Length)
        {
            Array.Resize(ref _entries, 2 * _count);
            Array.Resize(ref _tags, 2 * _count);
        }

        _entries[_count] = new PollEntry(file, events);
        _tags[_count++] = tag;
    }

    /// <summary>Takes a poll away; nothing happens when there is none with this tag.</summary>
    internal void Remove(ulong tag)
    {
        int at = _tags.AsSpan(0, _count).IndexOf(tag);
        if (at >= 0)
        {
            RemoveAt(at);
        }
    }

    /// <summary>Sleeps until one of them has its events, or so many microseconds are over (-1: for ever).</summary>
    internal void Wait(long microseconds) => Interop.Poll.WaitMicroseconds(_entries.AsSpan(0, _count), microseconds);

    /// <summary>Takes those that have their events, without sleeping; their number.</summary>
    internal int Reap(Span<IoCompletion> completions)
    {
        Wait(0);
        int taken = 0;
        for (int i = _count - 1; i >= 0 && taken < completions.Length; i--)
        {
            if (_entries[i].Came != PollEvents.None)
            {
                completions[taken++] = new IoCompletion(_tags[i], (int)_entries[i].Came);
                RemoveAt(i);
            }
        }

        return taken;
    }

    private void RemoveAt(int at)
    {
        _count--;
        _entries[at] = _entries[_count];
        _tags[at] = _tags[_count];
    }
}
