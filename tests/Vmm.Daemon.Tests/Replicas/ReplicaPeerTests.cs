using System.Security.Cryptography.X509Certificates;
using Vmm.Contracts.Rest;
using Vmm.Daemon.Access;
using Vmm.Daemon.Replicas.Receiving;
using Vmm.Storage.Replicas;

namespace Vmm.Daemon.Tests.Replicas;

/// <summary>Peers of every kind send to a recovery site: what is acknowledged stays, and nothing else is taken.</summary>
public sealed class ReplicaPeerTests : IAsyncLifetime
{
    private RecoverySite _site = null!;

    public async Task InitializeAsync() => _site = await RecoverySite.StartAsync();

    public async Task DisposeAsync() => await _site.DisposeAsync();

    [Fact]
    public async Task Bytes_arrive_in_their_order_once_and_go_on_after_a_death()
    {
        TestPrimary primary = await _site.ReplicaAsync(1);
        primary.Write(2);
        SpooledPoint point = primary.Cut();
        string id = point.Point.Id.ToString();
        byte[] bytes = await File.ReadAllBytesAsync(point.PathOf("disk0"));
        Assert.Equal([0ul, 0ul], (await primary.OfferAsync(TestPrimary.OfferOf(point))).Intake!.Arrived);
        Assert.Equal(300ul, (await primary.AppendAsync(id, "disk0", 0, bytes.AsMemory(0, 300))).Arrived);
        await CodeAsync(409, "replica-offset", "go on at 300", () => primary.AppendAsync(id, "disk0", 0, bytes.AsMemory(0, 300)));
        await CodeAsync(409, "replica-offset", "go on at 300", () => primary.AppendAsync(id, "disk0", 400, bytes.AsMemory(400, 1)));
        await CodeAsync(
            409, "replica-offset", "go on at 300", () => primary.AppendAsync(id, "disk0", ulong.MaxValue, bytes.AsMemory(0, 9)));
        await CodeAsync(404, "replica-no-disk", "disk", () => primary.AppendAsync(id, "disk7", 0, bytes.AsMemory(0, 9)));
        await CodeAsync(404, "replica-no-point", "was not offered", () => primary.AppendAsync("x", "disk0", 300, bytes.AsMemory(300, 9)));
        await CodeAsync(409, "replica-incomplete", $"300 of {bytes.Length} bytes of disk0", () => primary.SealAsync(id));
        await _site.Daemon.RestartAsync();
        Assert.Equal([300ul, 0ul], (await primary.OfferAsync(TestPrimary.OfferOf(point))).Intake!.Arrived);
        await primary.AppendAsync(id, "disk0", 300, bytes.AsMemory(300));
        await CodeAsync(409, "replica-parent", "more than", () => primary.AppendAsync(id, "disk0", (ulong)bytes.Length, new byte[1]));
        await primary.AppendAsync(id, "disk1", 0, await File.ReadAllBytesAsync(point.PathOf("disk1")));
        Assert.Null(await primary.SealedAsync(id));
        Assert.Equal(id, (await primary.SealAsync(id)).Newest); // asked again
        Assert.Equal(id, (await primary.OfferAsync(TestPrimary.OfferOf(point))).Newest); // acknowledged again
        Assert.Equal(2, (await _site.InfoAsync()).Points.Count);
    }

    [Fact]
    public async Task Another_point_takes_the_place_of_one_that_comes()
    {
        TestPrimary primary = await _site.ReplicaAsync(1);
        SpooledPoint dropped = primary.Cut();
        await primary.OfferAsync(TestPrimary.OfferOf(dropped));
        ReplicaPointOffer other = TestPrimary.OfferOf(dropped) with { Id = Guid.NewGuid().ToString() };
        Assert.Equal(other.Id, (await primary.OfferAsync(other)).Intake!.Id);
        await CodeAsync(404, "replica-no-point", "dropped",
            () => primary.AppendAsync(dropped.Point.Id.ToString(), "disk0", 0, new byte[9]));
    }

    [Fact]
    public async Task A_delta_that_is_damaged_truncated_or_not_what_was_offered_becomes_nothing()
    {
        TestPrimary primary = await _site.ReplicaAsync(1);
        string newest = (await primary.StatusAsync()).Newest;
        primary.Write(2);
        SpooledPoint point = primary.Cut();
        ReplicaPointOffer sound = TestPrimary.OfferOf(point);
        byte[][] deltas = [.. sound.Disks.Select(disk => File.ReadAllBytes(point.PathOf(disk.Name)))];
        Random random = new(3);
        for (int i = 0; i < 24; i++)
        {
            byte[][] sent = [.. deltas.Select(delta => (byte[])delta.Clone())];
            ReplicaPointOffer offer = sound;
            switch (i % 4)
            {
                case 0:
                    sent[i % 2][random.Next(sent[i % 2].Length)] ^= (byte)(1 << random.Next(8));
                    break;
                case 1: // truncated, and offered so
                    sent[0] = sent[0][..random.Next(400, sent[0].Length)];
                    offer = With(sound, sound.Disks[0] with { Stored = (ulong)sent[0].Length });
                    break;
                case 2:
                    offer = With(sound, sound.Disks[0] with { Root = new string('a', 64) });
                    break;
                default: // one disk's delta for the other's
                    sent = [sent[1], sent[0]];
                    offer = sound with
                    {
                        Disks = [sound.Disks[1] with { Name = "disk0" }, sound.Disks[0] with { Name = "disk1" }],
                    };
                    break;
            }

            await primary.OfferAsync(offer);
            for (int disk = 0; disk < 2; disk++)
            {
                await primary.AppendAsync(offer.Id, offer.Disks[disk].Name, 0, sent[disk]);
            }

            Assert.NotNull(await primary.SealedAsync(offer.Id));
            Assert.Equal(newest, (await primary.StatusAsync()).Newest);
        }

        await primary.SendAsync(point);
        Assert.Equal(2, (await _site.InfoAsync()).Points.Count);
        await _site.DoneAsync(_site.Client.VerifyReplicaPointAsync("web1", new FailoverWish(), CancellationToken.None));
    }

    [Fact]
    public async Task Points_of_another_parent_history_vm_or_disk_are_refused()
    {
        TestPrimary primary = await _site.ReplicaAsync(1), other = await _site.ReplicaAsync(1, "web2");
        ReplicaPointOffer sound = TestPrimary.OfferOf(primary.Cut());
        string some = Guid.NewGuid().ToString();
        await CodeAsync(409, "replica-parent", "stands on", () => primary.OfferAsync(sound with { Parent = some }));
        await CodeAsync(409, "replica-generation", some, () => primary.OfferAsync(sound with { Generation = some }));
        await CodeAsync(422, "replica-refused", "disk5 was not offered",
            () => primary.OfferAsync(With(sound, sound.Disks[0] with { Name = "disk5" })));
        await CodeAsync(422, "replica-refused", "named twice", () => primary.OfferAsync(With(sound, sound.Disks[1])));
        await CodeAsync(409, "replica-generation", sound.Generation, () => other.OfferAsync(sound));
        await CodeAsync(422, "replica-refused", "a delta of",
            () => primary.OfferAsync(With(sound, sound.Disks[0] with { Stored = 1ul << 50 })));
        await CodeAsync(422, "replica-refused", "time", () => primary.OfferAsync(sound with { Time = DateTimeOffset.UtcNow.AddDays(9) }));
        await CodeAsync(422, "replica-refused", "variables", () => primary.OfferAsync(sound with { Variables = "not base64!" }));
        await CodeAsync(422, "replica-refused", "id", () => primary.OfferAsync(sound with { Id = "../../x" }));
        await CodeAsync(422, "replica-refused", "seal", () => primary.OfferAsync(With(sound, sound.Disks[0] with { Seal = "00" })));
        ulong huge = OfferRules.MostDiskBytes;
        await CodeAsync(507, "no-space", "MiB free", () => primary.OfferAsync(
            With(sound, sound.Disks[0] with { Bytes = huge, Stored = huge, Why = "it is new" })));
        Assert.Null((await primary.StatusAsync()).Intake);
    }

    [Fact]
    public async Task A_replica_is_one_primarys_and_of_one_history()
    {
        TestPrimary primary = await _site.ReplicaAsync(1);
        await CodeAsync(404, "replica-not-found", "no replica", async () =>
        {
            using TestPrimary stranger = new(_site.Daemon.Folder, _site.Http, "nobody");
            await stranger.StatusAsync();
        });
        string vm = primary.Vm, generation = primary.Generation;
        primary.Vm = Guid.NewGuid().ToString(); // another VM of that name
        await CodeAsync(409, "replica-taken", "another VM", () => primary.PairAsync());
        primary.Vm = vm;
        primary.Generation = Guid.NewGuid().ToString();
        Problem problem = await DaemonFixture.RefusedAsync(() => primary.PairAsync());
        Assert.Equal("replica-taken", problem.Code);
        Assert.Contains(generation, problem.Detail, StringComparison.Ordinal);
        Assert.Contains(primary.Generation, problem.Detail, StringComparison.Ordinal);

        // The primary ended it, and begins anew: what is here stays, and is added to.
        using (HttpResponseMessage ended = await _site.Http.DeleteAsync(new Uri(primary.Site, UriKind.Relative)))
        {
            Assert.Equal(204, (int)ended.StatusCode);
        }

        Assert.Contains("ended the pairing", (await _site.InfoAsync()).Problem!, StringComparison.Ordinal);
        Assert.Equal(generation, (await primary.PairAsync()).Generations.Older);
        await primary.ReplicateAsync(2);
        Assert.Equal(2, (await _site.InfoAsync()).Points.Count);
    }

    [Fact]
    public async Task A_vm_of_this_host_is_not_replicated_to_it()
    {
        await _site.Daemon.CreateAsync("web1");
        using TestPrimary primary = new(_site.Daemon.Folder, _site.Http);
        await CodeAsync(409, "replica-taken", "VM web1", () => primary.PairAsync());
        primary.Vm = (await _site.Client.ShowAsync("web1", CancellationToken.None)).Id;
        await CodeAsync(409, "replica-taken", primary.Vm, () => primary.PairAsync());
    }

    [Fact]
    public async Task Hashes_of_the_newest_point_are_told()
    {
        TestPrimary primary = await _site.ReplicaAsync(2);
        byte[] all = await _site.Http.GetByteArrayAsync(new Uri(primary.Site + "/trees/disk0", UriKind.Relative));
        Assert.Equal(TestPrimary.DiskBytes / 65536 * 32, all.Length);
        byte[] two = await _site.Http.GetByteArrayAsync(new Uri(primary.Site + "/trees/disk0?from=3&count=2", UriKind.Relative));
        Assert.Equal(all[96..160], two);
        Assert.Empty(await _site.Http.GetByteArrayAsync(new Uri(primary.Site + "/trees/disk0?from=16", UriKind.Relative)));
        foreach (string odd in (string[])["disk0?from=-1", "disk0?count=65537", "disk0?from=99999999999999999999", "disk9"])
        {
            using HttpResponseMessage refused = await _site.Http.GetAsync(new Uri(primary.Site + "/trees/" + odd, UriKind.Relative));
            Assert.InRange((int)refused.StatusCode, 400, 404);
        }
    }

    [Fact]
    public async Task Too_many_bytes_at_once_are_refused()
    {
        TestPrimary primary = await _site.ReplicaAsync(1);
        SpooledPoint point = primary.Cut();
        await primary.OfferAsync(TestPrimary.OfferOf(point));
        string id = point.Point.Id.ToString();
        await CodeAsync(413, "too-large", "", () => primary.AppendAsync(id, "disk0", 0, new byte[(8 << 20) + 1]));
        Assert.Equal([0ul, 0ul], (await primary.StatusAsync()).Intake!.Arrived);
    }

    [Fact]
    public async Task A_peer_with_another_certificate_gets_nothing_of_a_replica()
    {
        using Authority authority = new("peers");
        using X509Certificate2 one = authority.Client("one"), other = authority.Client("other");
        await using RecoverySite site = await RecoverySite.StartAsync(folder =>
            authority.Options(folder, ("one", Role.Peer, one), ("other", Role.Peer, other)));
        using HttpClient mine = Client(site, authority, one), theirs = Client(site, authority, other);
        using TestPrimary primary = new(site.Daemon.Folder, mine);
        await primary.PairAsync();
        SpooledPoint point = await primary.ReplicateAsync(1);
        using TestPrimary thief = new(site.Daemon.Folder, theirs, "web1-thief") { Vm = primary.Vm, Generation = primary.Generation };
        await CodeAsync(403, "replica-not-yours", "another vmmd", () => thief.StatusAsync());
        await CodeAsync(403, "replica-not-yours", "another vmmd", () => thief.OfferAsync(TestPrimary.OfferOf(point)));
        await CodeAsync(403, "replica-not-yours", "another vmmd", () => thief.SealAsync(point.Point.Id.ToString()));
        await CodeAsync(403, "replica-not-yours", "another vmmd",
            () => thief.AppendAsync(point.Point.Id.ToString(), "disk0", 0, new byte[9]));
        await CodeAsync(409, "replica-taken", "another primary", () => thief.PairAsync());
        await CodeAsync(403, "forbidden", "for viewer", () => thief.AskAsync(
            HttpMethod.Get, "/api/v1/replicas", null, RestJson.Default.ReplicaList));
    }

    private static HttpClient Client(RecoverySite site, Authority authority, X509Certificate2 certificate)
    {
        SocketsHttpHandler handler = new();
        handler.SslOptions.ClientCertificates = [certificate];
        handler.SslOptions.CertificateChainPolicy = new X509ChainPolicy
        {
            TrustMode = X509ChainTrustMode.CustomRootTrust,
            RevocationMode = X509RevocationMode.NoCheck,
        };
        handler.SslOptions.CertificateChainPolicy.CustomTrustStore.AddRange(authority.Trusted);
        return new HttpClient(handler) { BaseAddress = site.Daemon.Host.TlsAddress };
    }

    private static ReplicaPointOffer With(ReplicaPointOffer offer, ReplicaPointDisk first) =>
        offer with { Disks = [first, .. offer.Disks.Skip(1)] };

    private static async Task CodeAsync(int status, string code, string named, Func<Task> request)
    {
        Problem problem = await DaemonFixture.RefusedAsync(request);
        Assert.Equal((status, code), (problem.Status, problem.Code));
        Assert.Contains(named, problem.Detail, StringComparison.Ordinal);
    }
}
