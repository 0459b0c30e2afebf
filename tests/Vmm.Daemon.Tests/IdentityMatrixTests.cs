using System.Diagnostics;
using System.Globalization;
using System.Net;
using System.Security.Cryptography.X509Certificates;
using Microsoft.AspNetCore.Routing;
using Vmm.Contracts.Rest;
using Vmm.Daemon.Access;
using Vmm.Daemon.Inventory;

namespace Vmm.Daemon.Tests;

/// <summary>Everybody there can be, on every route there is.</summary>
public sealed class IdentityMatrixTests
{
    private static readonly CancellationToken s_none = CancellationToken.None;

    // The least role of each route, written down once more: the route's own word is what is tested. A route that is not here fails the
    // test.
    private const string Everybody = "GET /healthz", Admins = """
        POST /api/v1/vms
        PUT /api/v1/vms/{name}
        DELETE /api/v1/vms/{name}
        PUT /api/v1/vms/{name}/seed
        DELETE /api/v1/vms/{name}/seed
        POST /api/v1/vms/{name}/migrate
        POST /api/v1/vms/{name}/settle
        PUT /api/v1/vms/{name}/replica
        DELETE /api/v1/vms/{name}/replica
        POST /api/v1/vms/{name}/replica/resync
        POST /api/v1/vms/{name}/disks
        POST /api/v1/vms/{name}/nets
        DELETE /api/v1/vms/{name}/devices/{device}
        PUT /api/v1/vms/{name}/devices/{device}/size
        POST /api/v1/vms/{name}/devices/{device}/copy
        POST /api/v1/vms/{name}/snapshot
        POST /api/v1/vms/{name}/backup
        POST /api/v1/vms/{name}/devices/{device}/commit
        POST /api/v1/vms/{name}/devices/{device}/stream
        PUT /api/v1/balancer
        PUT /api/v1/log
        POST /api/v1/disks
        DELETE /api/v1/disks/{name}
        POST /api/v1/images
        POST /api/v1/images/{name}/export
        DELETE /api/v1/images/{name}
        POST /api/v1/networks
        PUT /api/v1/networks/{name}
        DELETE /api/v1/networks/{name}
        GET /api/v1/tokens
        POST /api/v1/tokens
        DELETE /api/v1/tokens/{id}
        DELETE /api/v1/replicas/{name}
        POST /api/v1/replicas/{name}/test-failover
        DELETE /api/v1/replicas/{name}/tests/{vm}
        POST /api/v1/replicas/{name}/failover
        POST /api/v1/replicas/{name}/commit
        POST /api/v1/replicas/{name}/cancel
        """, Operators = """
        POST /api/v1/host/fit
        POST /api/v1/vms/{name}/save
        POST /api/v1/vms/{name}/discard-saved
        POST /api/v1/vms/{name}/upgrade
        POST /api/v1/restore
        POST /api/v1/vms/{name}/start
        POST /api/v1/vms/{name}/stop
        POST /api/v1/vms/{name}/pause
        POST /api/v1/vms/{name}/resume
        POST /api/v1/vms/{name}/power-button
        POST /api/v1/vms/{name}/wake
        POST /api/v1/vms/{name}/exec
        POST /api/v1/vms/{name}/replica/pause
        POST /api/v1/vms/{name}/replica/resume
        POST /api/v1/vms/{name}/replica/sync
        POST /api/v1/vms/{name}/replica/verify
        GET /api/v1/vms/{name}/console
        PUT /api/v1/vms/{name}/memory
        PUT /api/v1/vms/{name}/cpu
        PUT /api/v1/vms/{name}/devices/{device}/limits
        POST /api/v1/vms/{name}/vnodes/{vnode}/rehome
        POST /api/v1/jobs/{id}/cancel
        POST /api/v1/replicas/{name}/verify
        """, Peers = """
        POST /api/v1/migrations
        GET /api/v1/migrations/{id}
        POST /api/v1/migrations/{id}/commit
        DELETE /api/v1/migrations/{id}
        GET /api/v1/migrations/{id}/channels/{channel}
        PUT /api/v1/replication/{vm}
        GET /api/v1/replication/{vm}
        DELETE /api/v1/replication/{vm}
        POST /api/v1/replication/{vm}/points
        PUT /api/v1/replication/{vm}/points/{point}/disks/{disk}
        POST /api/v1/replication/{vm}/points/{point}/seal
        GET /api/v1/replication/{vm}/trees/{disk}
        """, Viewers = """
        GET /metrics
        GET /openapi/v1.json
        GET /api/v1/host
        GET /api/v1/host/numa
        GET /api/v1/schema/vm-spec.json
        GET /api/v1/vms
        GET /api/v1/vms/{name}
        GET /api/v1/vms/{name}/replica
        GET /api/v1/vms/{name}/spec
        GET /api/v1/vms/{name}/seed
        GET /api/v1/vms/{name}/stats
        GET /api/v1/vms/{name}/units
        GET /api/v1/vms/{name}/agent
        GET /api/v1/vms/{name}/guest
        GET /api/v1/vms/{name}/events
        GET /api/v1/vms/{name}/memory
        GET /api/v1/vms/{name}/numa
        GET /api/v1/vms/{name}/cpu
        GET /api/v1/vms/{name}/devices
        GET /api/v1/events
        GET /api/v1/balancer
        GET /api/v1/pressure
        GET /api/v1/log
        GET /api/v1/disks
        GET /api/v1/disks/{name}
        GET /api/v1/images
        GET /api/v1/images/{name}
        GET /api/v1/networks
        GET /api/v1/networks/{name}
        GET /api/v1/jobs
        GET /api/v1/jobs/{id}
        GET /api/v1/replicas
        GET /api/v1/replicas/{name}
        """;

    // Connects as another user (its groups go with the first), and says the status of each request that comes in: perl-base is part of
    // every Debian.
    private const string AsUser = """
        use strict; use Socket; $| = 1;
        my ($path, $uid, $gid, @groups) = @ARGV;
        $) = join(' ', $gid, @groups ? @groups : ($gid)); $( = $gid; $> = $uid;
        die "not uid $uid\n" if $> != $uid;
        while (my $line = <STDIN>) {
            chomp $line; my ($method, $target) = split / /, $line;
            socket(my $s, PF_UNIX, SOCK_STREAM, 0) or die;
            if (!connect($s, sockaddr_un($path))) { print "none\n"; next; }
            syswrite $s, "$method $target HTTP/1.1\r\nHost: vmmd\r\nConnection: close\r\nContent-Length: 0\r\n\r\n";
            my $answer = ''; while (length $answer < 12 && sysread($s, my $more, 12 - length $answer)) { $answer .= $more; }
            print substr($answer, 9, 3), "\n"; close $s;
        }
        """;

    private const int NoAnswer = 0;

    private static readonly Dictionary<string, Role?> s_least = Table();

    [Fact]
    public async Task Over_tls_everybody_gets_as_far_as_their_role_on_every_route()
    {
        using Authority ours = new("ours"), others = new("others");
        using X509Certificate2 viewer = ours.Client("viewer"), oper = ours.Client("operator"), admin = ours.Client("admin"),
            peer = ours.Client("peer"), expired = ours.Expired("expired"),
            revoked = ours.Client("revoked"), unknown = ours.Client("unknown"),
            forged = others.Client("admin");
        await using DaemonFixture daemon = await DaemonFixture.StartAsync(folder =>
            ours.Options(folder, ("peer", Role.Peer, peer), ("viewer", Role.Viewer, viewer),
                ("operator", Role.Operator, oper), ("admin", Role.Admin, admin),
                ("expired", Role.Admin, expired), ("revoked", Role.Admin, revoked), ("forged", Role.Admin, forged)));
        Dictionary<string, string> tokens = await TokensAsync(daemon);
        daemon.Host.Reload(daemon.Options with { Certificates = [.. daemon.Options.Certificates.Where(c => c.Name is not "revoked")] }, "");
        Identity[] everybody =
        [
            new("nobody", null, null, null), new("certificate viewer", viewer, null, Role.Viewer),
            new("certificate peer", peer, null, Role.Peer),
            new("certificate operator", oper, null, Role.Operator), new("certificate admin", admin, null, Role.Admin),
            new("certificate unknown", unknown, null, null), new("certificate revoked", revoked, null, null),
            new("certificate expired", expired, null, null, Shut: true),
            new("certificate of another authority", forged, null, null, Shut: true),
            .. tokens.Select(t => new Identity("token " + t.Key, null, t.Value, RoleOf(t.Key))),
            new("a wrong token and the certificate of an admin", admin, "vmm_wrong", null),
            new("the token of a viewer and the certificate of an admin", admin, tokens["viewer"], Role.Viewer),
        ];
        foreach (Identity who in everybody)
        {
            using HttpClient http = Https(daemon, ours, who.Certificate, who.Token);
            foreach ((string route, HttpMethod method, string path) in Targets(daemon))
            {
                int status = await StatusAsync(http, method, path);
                Require(
                    who.Shut ? status == NoAnswer : Fits(status, s_least[route], who.Role, HttpStatusCode.Unauthorized),
                    who.Name,
                    route,
                    status);
            }
        }
    }

    [Fact]
    public async Task On_the_unix_socket_tokens_get_as_far_as_their_role_on_every_route()
    {
        await using DaemonFixture daemon = await DaemonFixture.StartAsync();
        foreach ((string name, string token) in await TokensAsync(daemon))
        {
            using HttpClient http = ApiTests.Raw(daemon);
            http.DefaultRequestHeaders.Authorization = new("Bearer", token);
            foreach ((string route, HttpMethod method, string path) in Targets(daemon))
            {
                int status = await StatusAsync(http, method, path);
                Require(Fits(status, s_least[route], RoleOf(name), HttpStatusCode.Unauthorized), "token " + name, route, status);
            }
        }
    }

    /// <summary>Who is not root is only itself: the other users need root to become them.</summary>
    [Fact]
    public async Task On_the_unix_socket_every_user_gets_as_far_as_their_groups_on_every_route()
    {
        (string operators, int operatorsId, string viewers, int viewersId) = TwoGroups();
        await using DaemonFixture daemon =
            await DaemonFixture.StartAsync(_ => new DaemonOptions { OperatorsGroup = operators, ViewersGroup = viewers });
        bool root = Environment.IsPrivilegedProcess;
        if (root)
        {
            const UnixFileMode Passable = UnixFileMode.UserRead | UnixFileMode.UserWrite | UnixFileMode.UserExecute
                | UnixFileMode.GroupExecute | UnixFileMode.OtherExecute;
            File.SetUnixFileMode(daemon.Folder, Passable);
            File.SetUnixFileMode(daemon.Options.RunFolder, Passable);
            // the daemon's own word counts here, not the file's
            File.SetUnixFileMode(daemon.Options.SocketPath, (UnixFileMode)0b110_110_110);
        }

        const int User = 64_999, Group = 64_998;
        (string Name, int UserId, int[] Groups, Role? Role)[] users = root
            ? [("root", 0, [0], Role.Admin), ("a member of the operators", User, [Group, operatorsId], Role.Operator),
                ("one whose first group are the operators", User, [operatorsId], Role.Operator),
                ("a member of the viewers", User, [Group, viewersId], Role.Viewer),
                ("a member of both", User, [Group, viewersId, operatorsId], Role.Operator), ("another user", User, [Group], null),
                ("a user of root's group", User, [0], null)]
            : [];
        foreach ((string name, int userId, int[] groups, Role? role) in users)
        {
            (string Route, HttpMethod Method, string Path)[] targets = [.. Targets(daemon)];
            string[] said = await AsUserAsync(daemon.Options.SocketPath, userId, groups, targets.Select(t => $"{t.Method} {t.Path}"));
            Assert.Equal(targets.Length, said.Length);
            foreach (((string route, _, _), string status) in targets.Zip(said))
            {
                int code = int.Parse(status, CultureInfo.InvariantCulture);
                Require(Fits(code, s_least[route], role, HttpStatusCode.Forbidden), name, route, code);
            }
        }

        using HttpClient own = ApiTests.Raw(daemon);
        foreach ((string route, HttpMethod method, string path) in Targets(daemon))
        {
            int status = await StatusAsync(own, method, path);
            Require(Fits(status, s_least[route], Role.Admin, HttpStatusCode.Unauthorized), "the daemon's own user", route, status);
        }
    }

    [Theory]
    [InlineData("ann", "viewer", 403)]
    [InlineData("ann", "operator", 200)] // its own
    [InlineData("bob", "operator", 403)]
    [InlineData("bob", "admin", 200)]
    public async Task A_job_is_cancelled_by_its_owner_and_by_administrators(string name, string role, int expected)
    {
        await using DaemonFixture daemon = await DaemonFixture.StartAsync();
        await daemon.CreateAsync("web1");
        await daemon.Client.DoAsync("web1", "start", s_none);
        NewToken owner = await daemon.Client.CreateTokenAsync(new TokenWish("ann", "operator", 1), s_none),
            other = await daemon.Client.CreateTokenAsync(new TokenWish(name, role, 1), s_none);
        using HttpClient starts = ApiTests.Raw(daemon), cancels = ApiTests.Raw(daemon);
        starts.DefaultRequestHeaders.Authorization = new("Bearer", owner.Token);
        starts.DefaultRequestHeaders.TryAddWithoutValidation("Prefer", "respond-async");
        cancels.DefaultRequestHeaders.Authorization = new("Bearer", other.Token);
        using HttpResponseMessage accepted = await starts.PostAsync("/api/v1/vms/web1/stop?graceful=600", null);
        Assert.Equal(HttpStatusCode.Accepted, accepted.StatusCode);
        Assert.Equal(expected, await StatusAsync(cancels, HttpMethod.Post, accepted.Headers.Location!.OriginalString + "/cancel"));
    }

    private static Dictionary<string, Role?> Table()
    {
        Dictionary<string, Role?> table = new(StringComparer.Ordinal);
        foreach ((string routes, Role? least) in new (string, Role?)[]
        {
            (Everybody, null), (Peers, Role.Peer), (Viewers, Role.Viewer), (Operators, Role.Operator), (Admins, Role.Admin)
        })
        {
            foreach (string route in routes.Split('\n'))
            {
                table.Add(route, least);
            }
        }

        return table;
    }

    /// <summary>Every route that is mapped; one that the table does not know, and one that is only in the table, fails here.</summary>
    private static IEnumerable<(string Route, HttpMethod Method, string Path)> Targets(DaemonFixture daemon)
    {
        RouteEndpoint[] routes = StrictInputTests.Routes(daemon);
        Assert.Equal(s_least.Keys.Order(StringComparer.Ordinal), routes.Select(StrictInputTests.Key).Order(StringComparer.Ordinal));
        return routes.Select(r => (StrictInputTests.Key(r), StrictInputTests.Target(r).Method, StrictInputTests.Target(r).Path));
    }

    /// <summary>What is asked for is not there or empty: who may, is told so, and nothing changes.</summary>
    private static bool Fits(int status, Role? least, Role? role, HttpStatusCode stranger) => least is null ? status == 200
        : role is null ? status == (int)stranger
        : (least == Role.Peer ? role is not (Role.Peer or Role.Admin) : role < least) ? status == 403
        : status is >= 200 and < 500 and not 401 and not 403;

    private static void Require(bool fits, string who, string route, int status) =>
        Assert.True(fits, $"{who}: {route}: {(status == NoAnswer ? "no answer" : status)}");

    private static Role? RoleOf(string token) =>
        token switch { "viewer" => Role.Viewer, "operator" => Role.Operator, "admin" => Role.Admin, _ => null };

    /// <summary>One of each role, one whose time is over, one that was deleted, and one that was never made.</summary>
    private static async Task<Dictionary<string, string>> TokensAsync(DaemonFixture daemon)
    {
        await daemon.StopDaemonAsync();
        string old;
        using (VmInventory inventory = VmInventory.Open(Path.Combine(daemon.Options.StateFolder, "inventory.db")))
        {
            old = new TokenStore(inventory.Tokens).Create("old", Role.Admin, TimeSpan.FromSeconds(-1)).Token;
        }

        await daemon.StartDaemonAsync();
        Dictionary<string, string> tokens =
            new(StringComparer.Ordinal) { ["expired"] = old, ["never made"] = "vmm_" + new string('0', 64) };
        foreach (string role in new[] { "viewer", "operator", "admin" })
        {
            tokens[role] = (await daemon.Client.CreateTokenAsync(new TokenWish(role, role, 1), s_none)).Token;
        }

        NewToken gone = await daemon.Client.CreateTokenAsync(new TokenWish("gone", "admin", 1), s_none);
        await daemon.Client.DeleteTokenAsync(gone.Info.Id, s_none);
        tokens["revoked"] = gone.Token;
        return tokens;
    }

    private static HttpClient Https(DaemonFixture daemon, Authority authority, X509Certificate2? certificate, string? token)
    {
        SocketsHttpHandler handler = new() { UseProxy = false };
        handler.SslOptions.CertificateChainPolicy = new X509ChainPolicy
        {
            TrustMode = X509ChainTrustMode.CustomRootTrust,
            RevocationMode = X509RevocationMode.NoCheck,
            CustomTrustStore = { authority.Trusted[0] }
        };
        handler.SslOptions.ClientCertificates = certificate is null ? null : [certificate];
        HttpClient http = new(handler) { BaseAddress = daemon.Host.TlsAddress, Timeout = ResourceOracle.Deadline };
        http.DefaultRequestHeaders.Authorization = token is null ? null : new("Bearer", token);
        return http;
    }

    private static async Task<int> StatusAsync(HttpClient http, HttpMethod method, string path)
    {
        using HttpRequestMessage request = new(method, path);
        try
        {
            // one of them has no end
            using HttpResponseMessage response = await http.SendAsync(request, HttpCompletionOption.ResponseHeadersRead);
            return (int)response.StatusCode;
        }
        catch (HttpRequestException)
        {
            return NoAnswer;
        }
    }

    /// <summary>Two groups of this host that root is not in: what they are for does not matter.</summary>
    private static (string Operators, int OperatorsId, string Viewers, int ViewersId) TwoGroups()
    {
        (string Name, int Id)[] groups = [.. File.ReadLines("/etc/group").Select(l => l.Split(':')).Where(f => f.Length > 2)
            .Select(f => (f[0], int.Parse(f[2], CultureInfo.InvariantCulture))).Where(g => g.Item2 > 0).Take(2)];
        return (groups[0].Name, groups[0].Id, groups[1].Name, groups[1].Id);
    }

    private static async Task<string[]> AsUserAsync(string socket, int userId, int[] groups, IEnumerable<string> requests)
    {
        ProcessStartInfo start = new("perl")
        {
            RedirectStandardInput = true,
            RedirectStandardOutput = true,
            RedirectStandardError = true,
            UseShellExecute = false
        };
        foreach (string argument in (string[])["-e", AsUser, socket, Text(userId), .. groups.Select(Text)])
        {
            start.ArgumentList.Add(argument);
        }

        using Process process = Process.Start(start)!;
        Task<string> said = process.StandardOutput.ReadToEndAsync(), errors = process.StandardError.ReadToEndAsync();
        foreach (string request in requests)
        {
            await process.StandardInput.WriteLineAsync(request);
        }

        process.StandardInput.Close();
        await process.WaitForExitAsync().WaitAsync(ResourceOracle.Deadline);
        Assert.True(process.ExitCode == 0, await errors);
        return (await said).Split('\n', StringSplitOptions.RemoveEmptyEntries);

        static string Text(int number) => number.ToString(CultureInfo.InvariantCulture);
    }

    /// <summary>Somebody who connects.</summary>
    /// <param name="Name">For messages.</param>
    /// <param name="Certificate">What they show in the handshake.</param>
    /// <param name="Token">What they show in each request.</param>
    /// <param name="Role">What they may; null is nothing.</param>
    /// <param name="Shut">The handshake fails already.</param>
    private sealed record Identity(string Name, X509Certificate2? Certificate, string? Token, Role? Role, bool Shut = false);
}
