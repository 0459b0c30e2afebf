using Vmm.Contracts.Rest;
using Vmm.Daemon.Replicas.Receiving;
using Vmm.Daemon.Vms;

namespace Vmm.Daemon.Tests.Replicas;

/// <summary>The pure parts of a recovery site.</summary>
public sealed class ReplicaModelTests
{
    private static readonly ReplicaOffer s_offer = new(
        Guid.NewGuid().ToString(), "web1", "a", new ReplicaGenerations(Guid.NewGuid().ToString()), [new ReplicaDisk("disk0", 512)],
        new ReplicaKeep());

    /// <summary>All that can happen in each state, written down once more.</summary>
    [Theory]
    [InlineData(ReplicaSiteState.Receiving, "Point=Receiving Failover=FailedOver Delete=Receiving")]
    [InlineData(ReplicaSiteState.FailedOver, "Commit=Committed Cancel=Receiving")]
    [InlineData(ReplicaSiteState.Committed, "Delete=Committed")]
    public void What_is_not_in_the_table_is_refused_with_what_to_do(ReplicaSiteState from, string allowed)
    {
        List<string> found = [];
        foreach (ReplicaEvent on in Enum.GetValues<ReplicaEvent>())
        {
            try
            {
                found.Add($"{on}={ReplicaStates.Next("web1", from, on)}");
            }
            catch (ApiException refused)
            {
                Assert.Equal(409, refused.Problem.Status);
                Assert.StartsWith("web1: ", refused.Problem.Detail, StringComparison.Ordinal);
            }
        }

        Assert.Equal(allowed, string.Join(' ', found));
    }

    [Fact]
    public void A_primary_that_knows_the_history_here_renews_it_and_another_does_not()
    {
        SiteRecord record = Pairing.Begin(s_offer, "certificate:a");
        Assert.Equal(record.Generations, Pairing.Renew(record, s_offer, "certificate:a").Generations);
        string next = Guid.NewGuid().ToString();
        ReplicaOffer later = s_offer with { Generations = new ReplicaGenerations(next, s_offer.Generations.Current) };
        Assert.Equal(
            new ReplicaGenerations(next, "", s_offer.Generations.Current), Pairing.Renew(record, later, "certificate:a").Generations);
        ReplicaOffer stranger = s_offer with { Generations = new ReplicaGenerations(next) };
        Assert.Throws<ApiException>(() => Pairing.Renew(record, stranger, "certificate:a"));
        Assert.Throws<ApiException>(() => Pairing.Renew(record, s_offer, "certificate:b"));
        SiteRecord failed = record with
        {
            State = ReplicaSiteState.FailedOver,
            Failover = new FailoverRecord("web1", 1, "x", FailoverStep.Made, record.Generations),
            Generations = Pairing.Alone(record.Generations, next),
        };
        Assert.Same(failed, Pairing.Renew(failed, stranger, "certificate:a"));
        Assert.Equal((next, s_offer.Generations.Current), (failed.Generations.Current, failed.Generations.LastCommon));
        Assert.Equal(record, Recoveries.Undone(failed));
    }

    /// <summary>Whatever site.json holds, it is read or refused.</summary>
    [Fact]
    public void A_record_of_any_content_is_sound_or_refused()
    {
        string folder = Directory.CreateTempSubdirectory("vmm-site-").FullName;
        try
        {
            SiteRecord record = Pairing.Begin(s_offer, "certificate:a") with { Tests = [new TestRecord("t", "i", 1)] };
            SiteFile.Write(folder, record);
            byte[] sound = File.ReadAllBytes(Path.Combine(folder, "site.json"));
            Assert.Equal(record.Tests, SiteFile.Read(folder).Tests);
            int refused = 0;
            for (int seed = 0; seed < 4000; seed++)
            {
                Random random = new(seed);
                byte[] text = (byte[])sound.Clone();
                for (int changes = random.Next(1, 5); changes > 0; changes--)
                {
                    text[random.Next(text.Length)] = (byte)random.Next(256);
                }

                try
                {
                    SiteRecord read = SiteFile.Parse(seed % 5 == 0 ? text.AsSpan(0, random.Next(text.Length)) : text, "x");
                    Assert.Null(OfferRules.Problem(read.Vm, read.Name, read.Source, read.Generations, read.Disks, read.Keep));
                }
                catch (InvalidDataException)
                {
                    refused++;
                }
            }

            Assert.InRange(refused, 2000, 3999);
        }
        finally
        {
            Directory.Delete(folder, recursive: true);
        }
    }
}
