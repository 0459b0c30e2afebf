using Vmm.Contracts.Rest;
using Vmm.Daemon.Moves;
using Vmm.Daemon.Replicas.Sending;
using Vmm.Storage;
using Vmm.Storage.Replicas;

namespace Vmm.Daemon.Tests.Replicas;

/// <summary>
/// A recovery site without a network: its points are real files, so what a primary sends has to be right. It can be away, lie, and fail at
/// any call.
/// </summary>
internal sealed class FakeSite(string folder) : IDisposable
{
    private readonly Lock _gate = new();
    private ReplicaFolder? _points;
    private string? _problem;

    /// <summary>Happens before each call is carried out, with its name: pair, find, offer, send, seal, leaves, end.</summary>
    internal Action<string> Before { get; set; } = _ => { };

    /// <summary>What it says in place of what is so.</summary>
    internal Func<ReplicaSiteInfo, ReplicaSiteInfo> Says { get; set; } = info => info;

    /// <summary>Why it refuses the next point that is sealed; null: it does not.</summary>
    internal string? RefuseSeal { get; set; }

    internal ReplicaSiteState State { get; set; } = ReplicaSiteState.Receiving;

    internal ReplicaGenerations? Generations { get; set; }

    internal ReplicaOffer? Offer { get; private set; }

    /// <summary>Points as they were offered, each once.</summary>
    internal List<ReplicaPointOffer> Offered { get; } = [];

    /// <summary>Bytes that came.</summary>
    internal long Received { get; private set; }

    internal bool IsEnded { get; private set; }

    internal ReplicaFolder Points => _points!;

    internal ArrangedPoint? Newest => _points?.Newest;

    internal IReplicaPeer Connect() => new Connection(this);

    /// <summary>All points are gone, as of a site whose disk was replaced.</summary>
    internal void LosePoints()
    {
        lock (_gate)
        {
            Guid owner = _points!.Owner;
            _points.Delete();
            _points.Dispose();
            _points = ReplicaFolder.Create(folder, owner);
        }
    }

    public void Dispose() => _points?.Dispose();

    private ReplicaSiteInfo Info() => Says(new ReplicaSiteInfo(
        Offer!.Vm,
        State,
        Generations!,
        Newest?.Point.Id.ToString("D") ?? "",
        [.. (Newest?.Point.Disks ?? []).Select(disk => new ReplicaPointDisk(disk.Name, disk.Bytes, disk.Stored, disk.Seal, disk.Root))],
        Points.Intake is { } intake
            ? new ReplicaIntakeInfo(intake.Point.Id.ToString("D"), intake.Arrived, Problem: _problem)
            : _problem is not null ? new ReplicaIntakeInfo(Offered[^1].Id, [], Problem: _problem) : null,
        1UL << 40));

    private sealed class Connection(FakeSite site) : IReplicaPeer
    {
        public Task<ReplicaSiteInfo> PairAsync(ReplicaOffer offer, CancellationToken cancellation) => At("pair", () =>
        {
            site.Offer = offer;
            site.Generations = offer.Generations with { LastCommon = "" };
            site._points ??= ReplicaFolder.Create(site.Folder, Guid.Parse(offer.Vm));
            return site.Info();
        });

        public Task<ReplicaSiteInfo?> FindAsync(string vm, CancellationToken cancellation) =>
            At("find", () => site._points is null ? null : site.Info());

        public Task<ReplicaSiteInfo> OfferAsync(string vm, ReplicaPointOffer point, CancellationToken cancellation) => At("offer", () =>
        {
            if (site.State != ReplicaSiteState.Receiving)
            {
                throw new PeerException("replica-failed-over", "it runs here");
            }

            site._problem = null;
            if (site.Offered.TrueForAll(each => each.Id != point.Id))
            {
                site.Offered.Add(point);
            }

            try
            {
                _ = site.Points.BeginIntake(PointOf(vm, point));
            }
            catch (BlockException cause)
            {
                throw new PeerException("replica-parent", cause.Message, cause);
            }

            return site.Info();
        });

        public Task<ulong> SendAsync(
            string vm, string point, string disk, ulong offset, ReadOnlyMemory<byte> bytes, CancellationToken cancellation) =>
            At("send", () =>
            {
                Assert.Equal(point, site.Points.Intake!.Point.Id.ToString("D"));
                site.Received += bytes.Length;
                return site.Points.Intake.TryAppend(disk, offset, bytes.Span, out ulong arrived)
                    ? arrived
                    : throw new PeerException("replica-offset", $"go on at {arrived}");
            });

        public Task<ReplicaSiteInfo> SealAsync(string vm, string point, CancellationToken cancellation) => At("seal", () =>
        {
            ReplicaIntake intake = site.Points.Intake!;
            if (site.RefuseSeal is { } why)
            {
                (site.RefuseSeal, site._problem) = (null, why);
                intake.Drop();
            }
            else
            {
                _ = intake.Seal();
            }

            return site.Info();
        });

        public Task<byte[]> LeavesAsync(string vm, string disk, ulong from, int count, CancellationToken cancellation) =>
            At("leaves", () =>
            {
                byte[] leaves = new byte[count * 32];
                Assert.Equal(count, site.Points.LeavesOf(disk, from, leaves));
                return leaves;
            });

        public Task EndAsync(string vm, CancellationToken cancellation) => At("end", () => site.IsEnded = true);

        public void Dispose()
        {
        }

        private static SealedPoint PointOf(string vm, ReplicaPointOffer offer) => new()
        {
            Id = Guid.Parse(offer.Id),
            Parent = offer.Parent.Length == 0 ? Guid.Empty : Guid.Parse(offer.Parent),
            Owner = Guid.Parse(vm),
            Generation = Guid.Parse(offer.Generation),
            Time = offer.Time,
            Quiesced = offer.Quiesced,
            IsLast = offer.IsLast,
            Spec = offer.Spec,
            Variables = offer.Variables,
            Disks = [.. offer.Disks.Select(disk => new SealedDisk(disk.Name, disk.Bytes, disk.Stored, disk.Seal, disk.Root, disk.Why))],
        };

        private Task<T> At<T>(string call, Func<T> answer)
        {
            try
            {
                site.Before(call);
                lock (site._gate)
                {
                    return Task.FromResult(answer());
                }
            }
            catch (PeerException refusal)
            {
                return Task.FromException<T>(refusal);
            }
        }
    }

    private string Folder => folder;
}
