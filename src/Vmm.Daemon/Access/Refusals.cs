using System.Collections.Concurrent;
using Microsoft.Extensions.Logging;

namespace Vmm.Daemon.Access;

/// <summary>
/// What was refused before anybody did anything: counted by kind, and logged as samples, a few of each peer and not many of all. Neither
/// the audit log nor the daemon's grows with what strangers send. Thread-safe.
/// </summary>
internal sealed class Refusals(ILogger log, TimeProvider? clock = null)
{
    /// <summary>Samples of one peer in a minute.</summary>
    internal const int SamplesOfPeer = 3;

    /// <summary>Samples of all peers in a minute.</summary>
    internal const int Samples = 30;

    private const int MostPeers = 1024, ToldPeers = 5, LongestText = 200;
    private const string Others = "other peers";
    private static readonly TimeSpan s_window = TimeSpan.FromMinutes(1);

    private readonly Lock _gate = new();
    private readonly TimeProvider _clock = clock ?? TimeProvider.System;
    private readonly ConcurrentDictionary<string, long> _totals = new(StringComparer.Ordinal);
    private readonly Dictionary<string, int> _peers = new(StringComparer.Ordinal);
    private DateTimeOffset _end;
    private int _sampled;

    /// <summary>How often, by kind.</summary>
    internal IReadOnlyDictionary<string, long> Totals => _totals;

    /// <summary>One more.</summary>
    /// <param name="peer">Who: <see cref="PeerKey"/>.</param>
    /// <param name="kind">The code of the refusal; one of a few words.</param>
    /// <param name="what">What was asked for, in the client's own words.</param>
    internal void Count(string peer, string kind, string what)
    {
        _totals.AddOrUpdate(kind, 1, (_, n) => n + 1);
        bool sample;
        (string Peer, int Count)[] told = [];
        int all = 0;
        lock (_gate)
        {
            DateTimeOffset now = _clock.GetUtcNow();
            if (now >= _end)
            {
                told = [.. _peers.Where(p => p.Value > SamplesOfPeer).Select(p => (p.Key, p.Value))
                    .OrderByDescending(p => p.Value).Take(ToldPeers)];
                all = _peers.Values.Sum();
                _peers.Clear();
                _sampled = 0;
                _end = now + s_window;
            }

            string key = _peers.ContainsKey(peer) || _peers.Count < MostPeers ? peer : Others;
            int count = _peers[key] = _peers.GetValueOrDefault(key) + 1;
            sample = count <= SamplesOfPeer && _sampled < Samples;
            _sampled += sample ? 1 : 0;
        }

        if (told.Length > 0)
        {
            DaemonLog.RefusedMany(log, all, string.Join(", ", told.Select(p => $"{p.Peer} ({p.Count})")));
        }

        if (sample)
        {
            DaemonLog.Refused(log, peer, what.Length <= LongestText ? what : what[..LongestText] + "…", kind);
        }
    }
}
