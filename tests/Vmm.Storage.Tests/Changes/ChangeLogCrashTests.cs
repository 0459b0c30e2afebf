using Vmm.Interop;
using Vmm.Storage.Changes;

namespace Vmm.Storage.Tests;

/// <summary>
/// Power cuts at any moment. A sync makes stable what the file had when it began; of everything later any sectors may be there, in any
/// order. Whatever is left, each write that might go on is in the log.
/// </summary>
public sealed class ChangeLogCrashTests
{
    private const ulong Extent = ChangeSet.ExtentBytes;
    private const ulong Disk = 40ul << 30; // ten thousand areas for 2,048 slots

    [Fact]
    public void No_write_that_went_on_is_forgotten_by_a_power_cut()
    {
        int seeds = int.Parse(
            Environment.GetEnvironmentVariable("VMM_CHANGE_CUTS") ?? "6", System.Globalization.CultureInfo.InvariantCulture);
        for (int seed = 0; seed < seeds; seed++)
        {
            using Trial trial = new(seed);
            trial.Run();
        }
    }

    /// <summary>Without a hot area nothing goes on, and without a sync no area gets hot.</summary>
    [Fact]
    public void A_write_waits_until_its_area_is_stable()
    {
        using LogFile file = new(Disk);
        using ChangeLog log = file.OpenLog();
        using EventFd bell = new();
        BlockRequest request = Request(0, 512);
        Assert.False(log.TryMark(0, 512));
        Assert.Equal(ChangeLog.SyncStep.Sync, log.TryBeginSync(request, bell));
        Assert.False(log.TryMark(0, 512));
        using EventFd other = new();
        Assert.Equal(ChangeLog.SyncStep.Wait, log.TryBeginSync(request, other));
        log.EndSync(0);
        Assert.True(other.TryTake(out _)); // it heard of the end
        Assert.True(log.TryMark(0, 512));
        Assert.True(log.TryMark((4ul << 20) - 512, 512));
        Assert.False(log.TryMark((4ul << 20) - 512, 1024)); // the next area, too
    }

    [Fact]
    public void A_log_that_cannot_be_written_lets_the_guest_go_on_and_knows_nothing()
    {
        using LogFile file = new(Disk);
        using ChangeLog log = file.OpenLog();
        using EventFd bell = new();
        Assert.False(log.TryMark(0, 512));
        Assert.Equal(ChangeLog.SyncStep.Sync, log.TryBeginSync(Request(0, 512), bell));
        log.EndSync(-Errno.EIO);
        Assert.True(log.TryMark(0, 512));
        for (int cut = 0; cut < 2; cut++)
        {
            log.Cut();
            Assert.Equal(ChangeUnknown.LogFailed, file.File.ReadPending().Reason);
            file.File.Forget();
        }
    }

    private static BlockRequest Request(ulong offset, uint length)
    {
        BlockRequest request = new(new Nobody());
        request.Prepare(BlockKind.Write, offset, length);
        return request;
    }

    private sealed class Nobody : IBlockOwner
    {
        public void Completed(BlockRequest request, DiskStatus status) { }
    }

    // One disk, whose writes go to a few thousand areas; the file's stable content beside it.
    private sealed class Trial : IDisposable
    {
        private readonly Random _random;
        private readonly LogFile _file = new(Disk);
        private readonly EventFd _bell = new();
        private readonly HashSet<ulong> _current = [], _pending = []; // extents whose writes went on
        private ChangeLog _log;
        private byte[] _stable;
        private byte[]? _syncing;
        private readonly List<(ulong Offset, uint Length)> _waiting = [];
        private int _covered;

        internal Trial(int seed)
        {
            _random = new Random(seed);
            _log = _file.OpenLog();
            _stable = Content();
        }

        internal void Run()
        {
            for (int step = 0; step < 12_000; step++)
            {
                switch (_random.Next(1000))
                {
                    case < 900:
                        Write();
                        break;
                    case < 992:
                        Sync();
                        break;
                    case < 997:
                        Cut();
                        break;
                    case < 999:
                        _file.File.Forget();
                        _pending.Clear();
                        _stable = _syncing is null ? Content() : _stable;
                        break;
                    default:
                        PowerCut();
                        break;
                }
            }

            PowerCut();
        }

        public void Dispose()
        {
            _log.Dispose();
            _bell.Dispose();
            _file.Dispose();
        }

        private void Write()
        {
            // Mostly near each other; now and then a long one.
            ulong area = (ulong)(_random.Next(4) == 0 ? _random.Next(10_000) : _random.Next(1800));
            uint length = _random.Next(200) == 0 ? 1u << 28 : (uint)_random.Next(1, 40) * 512;
            ulong offset = Math.Min((area << 22) + (ulong)(_random.Next(8000) * 512), Disk - length);
            if (_log.TryMark(offset, length))
            {
                Note(offset, length);
            }
            else
            {
                _waiting.Add((offset, length));
            }
        }

        // Begins one, or ends the one that goes on, as a node does.
        private void Sync()
        {
            if (_syncing is { } begun)
            {
                _stable = begun;
                _syncing = null;
                _log.EndSync(0);
                List<(ulong Offset, uint Length)> all = [.. _waiting];
                _waiting.Clear();
                for (int i = 0; i < all.Count; i++)
                {
                    bool marked = i < _covered && ChangeLog.IsLong(all[i].Offset, all[i].Length);
                    if (marked || _log.TryMark(all[i].Offset, all[i].Length))
                    {
                        Note(all[i].Offset, all[i].Length);
                    }
                    else
                    {
                        _waiting.Add(all[i]);
                    }
                }

                return;
            }

            RequestList list = default;
            _waiting.ForEach(each => list.Add(Request(each.Offset, each.Length)));
            Assert.Equal(ChangeLog.SyncStep.Sync, _log.TryBeginSync(list.First, _bell));
            _covered = _waiting.Count;
            _syncing = Content();
        }

        // At rest: nothing is in flight, so nothing waits.
        private void Cut()
        {
            for (int i = 0; i < 200 && (_waiting.Count > 0 || _syncing is not null); i++)
            {
                Sync();
            }

            Assert.Empty(_waiting); // each sync takes some of them on
            uint current = Word(512) & 1;
            bool merges = Word(516) != 0;
            byte[] before = Content();
            _log.Cut();
            if (merges)
            {
                _stable = Content(); // a sync was in there, before the current marks went
                for (int page = 0; page < 20; page++)
                {
                    int at = 16384 + (((page * 2) + (int)current) * 4096);
                    before.AsSpan(at, 4096).CopyTo(_stable.AsSpan(at));
                }
            }

            _pending.UnionWith(_current);
            _current.Clear();
            HashSet<ulong> named = [.. _file.Pending];
            Assert.True(_pending.IsSubsetOf(named), "a cut forgot a write");
        }

        private void PowerCut()
        {
            _waiting.Clear(); // they were never acknowledged
            byte[] now = Content(), left = [.. _stable];
            for (int sector = 0; sector < now.Length; sector += 512)
            {
                byte[] from = _random.Next(3) switch { 0 => _stable, 1 => now, _ => _syncing ?? now };
                from.AsSpan(sector, 512).CopyTo(left.AsSpan(sector));
            }

            _syncing = null;
            _log.Dispose();
            BlockFile.WriteAt(_file.File.Descriptor, left, 0);
            ChangeUnknown found = _file.Reopen().Begin(Guid.NewGuid(), 2000, LogFile.Stamp, Disk);
            Assert.Equal(ChangeUnknown.None, found);
            _log = _file.OpenLog();
            _stable = Content();
            _current.UnionWith(_pending);
            _pending.Clear();
            _log.Cut();
            HashSet<ulong> named = [.. _file.Pending];
            Assert.True(_current.IsSubsetOf(named), $"{_current.Except(named).Count()} of {_current.Count} extents were forgotten");
            _stable = Content();
            _pending.UnionWith(_current);
            _current.Clear();
        }

        private void Note(ulong offset, uint length)
        {
            for (ulong extent = offset / Extent; extent <= (offset + length - 1) / Extent; extent++)
            {
                _current.Add(extent);
            }
        }

        private uint Word(ulong at)
        {
            byte[] word = new byte[4];
            Assert.Equal(4, BlockFile.ReadAt(_file.File.Descriptor, word, at));
            return BitConverter.ToUInt32(word);
        }

        private byte[] Content()
        {
            byte[] content = new byte[BlockFile.Inspect(_file.File.Descriptor).Size];
            Assert.Equal(content.Length, BlockFile.ReadAt(_file.File.Descriptor, content, 0));
            return content;
        }
    }
}
